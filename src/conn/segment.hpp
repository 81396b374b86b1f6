// SPDX-License-Identifier: MIT
#pragma once
#include <cstddef>
#include <functional>
#include <span>

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

/// Is this segment as `from` sent it to `to`? A socket filter may see one before TCP has verified it.
/// Its checksum is right, or is that of the pseudo header alone (CHECKSUM_PARTIAL: of this machine, or
/// joined by GRO, which has verified it).
bool is_intact(const sys::Endpoint& from, const sys::Endpoint& to,
               std::span<const std::byte> segment);

}  // namespace tcpmig::conn
