// SPDX-License-Identifier: MIT
#include "control/whole.hpp"

#include <arpa/inet.h>

#include <cstring>
#include <tcpmig/codec.hpp>
#include <tcpmig/migrate.hpp>

namespace tcpmig::control {

std::vector<std::byte> encode_whole(const Snapshot& snapshot, std::span<const std::byte> blob) {
  const std::vector<std::byte> encoded = encode(snapshot);
  const std::uint32_t length = htonl(static_cast<std::uint32_t>(encoded.size()));
  std::vector<std::byte> payload(sizeof length + encoded.size() + blob.size());
  std::memcpy(payload.data(), &length, sizeof length);
  std::memcpy(payload.data() + sizeof length, encoded.data(), encoded.size());
  if (!blob.empty())
    std::memcpy(payload.data() + sizeof length + encoded.size(), blob.data(), blob.size());
  return payload;
}

std::expected<Whole, std::string> decode_whole(const abi::wire_header& commit,
                                               std::span<const std::byte> payload,
                                               const sys::Endpoint& local) {
  std::uint32_t length = 0;
  if (payload.size() < sizeof length) return std::unexpected("no snapshot");
  std::memcpy(&length, payload.data(), sizeof length);
  length = ntohl(length);
  payload = payload.subspan(sizeof length);
  if (length > payload.size()) return std::unexpected("the snapshot ends before it should");
  if (payload.size() - length > kMaxBlob) return std::unexpected("the blob is larger than 1 MB");
  auto snapshot = decode(payload.first(length));
  if (!snapshot) return std::unexpected(to_string(snapshot.error()));
  const sys::Endpoint client{sys::Address(commit.client), ntohs(commit.client_port)};
  if (snapshot->peer != client)
    return std::unexpected("the snapshot is of another client's connection");
  snapshot->local = local;
  const auto blob = payload.subspan(length);
  return Whole{std::move(*snapshot), {blob.begin(), blob.end()}};
}

}  // namespace tcpmig::control
