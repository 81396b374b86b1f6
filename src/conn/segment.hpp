// SPDX-License-Identifier: MIT
#pragma once
#include <cstddef>
#include <functional>
#include <span>
#include <vector>

#include "sys/address.hpp"

namespace tcpmig::conn {

/// Makes whole IP packets of one TCP segment (header and data, network order) and gives each to
/// `give`, in order. The ports in the header become those of `from` and `to`. The checksum is made
/// anew: that of a captured segment may be partial (CHECKSUM_PARTIAL on veth). A segment that the
/// receiver had joined (GRO) beyond the length of an IP packet is split. False: not a TCP segment,
/// nothing was given.
bool give_packets(const sys::Endpoint& from, const sys::Endpoint& to,
                  std::span<const std::byte> segment,
                  const std::function<void(std::span<const std::byte>)>& give);

/// The same segment from `from` to `to`: ports, and a checksum made anew. At most as long as one IP packet takes. Empty: not a TCP segment.
std::vector<std::byte> readdress(const sys::Endpoint& from, const sys::Endpoint& to,
                                 std::span<const std::byte> segment);

/// Is this segment as `from` sent it to `to`? A socket filter may see one before TCP has verified it.
/// Its checksum is right, or is that of the pseudo header alone (CHECKSUM_PARTIAL: of this machine, or
/// joined by GRO, which has verified it).
bool is_intact(const sys::Endpoint& from, const sys::Endpoint& to,
               std::span<const std::byte> segment);

}  // namespace tcpmig::conn
