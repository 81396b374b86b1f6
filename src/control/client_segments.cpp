// SPDX-License-Identifier: MIT
#include "control/client_segments.hpp"

#include <arpa/inet.h>
#include <netinet/tcp.h>

#include <algorithm>
#include <cstring>

namespace tcpmig::control {
namespace {

std::vector<std::byte> piece(std::span<const std::byte> header, std::span<const std::byte> data,
                             std::uint32_t seq, bool last) {
  std::vector<std::byte> result(header.begin(), header.end());
  result.insert(result.end(), data.begin(), data.end());
  tcphdr tcp{};
  std::memcpy(&tcp, result.data(), sizeof tcp);
  tcp.seq = htonl(seq);
  if (!last) {
    tcp.fin = 0;
    tcp.psh = 0;
  }
  std::memcpy(result.data(), &tcp, sizeof tcp);
  return result;
}

}  // namespace

std::vector<std::vector<std::byte>> split_segment(std::span<const std::byte> segment,
                                                  std::size_t room) {
  tcphdr tcp{};
  if (segment.size() < sizeof tcp) return {};
  std::memcpy(&tcp, segment.data(), sizeof tcp);
  const std::size_t header_length = std::size_t{tcp.doff} * 4;
  if (header_length < sizeof tcp || header_length > segment.size() || room <= header_length)
    return {};
  const auto header = segment.first(header_length);
  const auto data = segment.subspan(header_length);
  const std::size_t step = room - header_length;
  std::vector<std::vector<std::byte>> result;
  std::size_t offset = 0;
  do {
    const auto part = data.subspan(offset, std::min(step, data.size() - offset));
    const bool last = offset + part.size() == data.size();
    result.push_back(
        piece(header, part, ntohl(tcp.seq) + static_cast<std::uint32_t>(offset), last));
    offset += part.size();
  } while (offset < data.size());
  return result;
}

std::vector<std::vector<std::byte>> craft_segments(const Snapshot& snapshot,
                                                   std::span<const std::byte> bytes, bool fin,
                                                   std::size_t room) {
  tcphdr tcp{};
  tcp.source = htons(snapshot.peer.port);
  tcp.dest = htons(snapshot.local.port);
  tcp.seq = htonl(snapshot.rcv_nxt.value);
  tcp.ack_seq = htonl(snapshot.snd_nxt.value);
  const unsigned shift = snapshot.wscale ? snapshot.wscale->snd : 0;
  tcp.window =
      htons(static_cast<std::uint16_t>(std::min<std::uint32_t>(snapshot.snd_wnd >> shift, 0xffff)));
  tcp.ack = 1;
  tcp.psh = 1;
  tcp.fin = fin ? 1 : 0;
  std::vector<std::byte> segment;
  std::vector<std::byte> options;
  if (snapshot
          .timestamps) {  // NOP NOP TS: a segment without them would be dropped once they were negotiated (RFC 7323, 3.2)
    const std::uint32_t values[2] = {htonl(snapshot.timestamps->ts_recent.value_or(0)),
                                     htonl(snapshot.timestamps->tsval_now)};
    options = {std::byte{1}, std::byte{1}, std::byte{8}, std::byte{10}};
    const auto raw = std::as_bytes(std::span(values));
    options.insert(options.end(), raw.begin(), raw.end());
  }
  tcp.doff = (sizeof tcp + options.size()) / 4 & 0xfU;
  const auto raw = std::as_bytes(std::span(&tcp, 1));
  segment.insert(segment.end(), raw.begin(), raw.end());
  segment.insert(segment.end(), options.begin(), options.end());
  segment.insert(segment.end(), bytes.begin(), bytes.end());
  return split_segment(segment, room);
}

}  // namespace tcpmig::control
