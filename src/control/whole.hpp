// SPDX-License-Identifier: MIT
#pragma once
#include <cstddef>
#include <expected>
#include <span>
#include <string>
#include <vector>

#include "control/message.hpp"

/// The payload of a transfer with WIRE_FLAG_WHOLE: be32 length of the encoded snapshot, the snapshot, the application's blob.
namespace tcpmig::control {

struct Whole {
  Snapshot snapshot;
  std::vector<std::byte> blob;
};

/// Throws std::invalid_argument on a snapshot that contradicts itself.
std::vector<std::byte> encode_whole(const Snapshot& snapshot, std::span<const std::byte> blob);
/// `local`: the connection's end here. Error: a sentence.
std::expected<Whole, std::string> decode_whole(const abi::wire_header& commit,
                                               std::span<const std::byte> payload,
                                               const sys::Endpoint& local);

}  // namespace tcpmig::control
