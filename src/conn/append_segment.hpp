// SPDX-License-Identifier: MIT
#pragma once
#include <cstddef>
#include <span>

#include <tcpmig/snapshot.hpp>

namespace tcpmig::conn {

/// Lets a segment that the lock captured go with the snapshot instead of behind it: its data is added to
/// `received`, and the peer's window and latest timestamp become the segment's, as if TCP had taken it before
/// the freeze (RFC 9293, 3.10.7.4; RFC 7323, 5). The bytes are not acknowledged yet; whoever goes on with the
/// snapshot acknowledges them. `segment`: TCP header and data, network order, checksum known to be right.
/// Only the plain case: data that begins at rcv_nxt or overlaps it, ACK with the number snd_nxt, no other flag than
/// PSH, no option but negotiated timestamps that are not older than the latest. False: not that; nothing was changed.
bool append_segment(Snapshot& snapshot, std::span<const std::byte> segment);

/// All data of this segment is below `rcv_nxt`, and it says nothing else (FIN, SYN, RST; a bare ACK).
bool adds_nothing(Seq rcv_nxt, std::span<const std::byte> segment);

}  // namespace tcpmig::conn
