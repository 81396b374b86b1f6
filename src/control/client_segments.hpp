// SPDX-License-Identifier: MIT
#pragma once
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include <tcpmig/snapshot.hpp>

namespace tcpmig::control {

/// Splits one captured TCP segment (header and data; it may be a GSO super-packet) into segments whose header and data are at most `room`
/// bytes, sequence numbers right, FIN and PSH only on the last one. Malformed input yields nothing.
std::vector<std::vector<std::byte>> split_segment(std::span<const std::byte> segment,
                                                  std::size_t room);

/// Makes TCP segments of bytes that slipped past the lock: they begin at snapshot.rcv_nxt; `fin`: the client's FIN follows them.
/// Acknowledgement number and window are the snapshot's; the receiver fills in the former (WIRE_FLAG_CRAFTED).
std::vector<std::vector<std::byte>> craft_segments(const Snapshot& snapshot,
                                                   std::span<const std::byte> bytes, bool fin,
                                                   std::size_t room);

}  // namespace tcpmig::control
