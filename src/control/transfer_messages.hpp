// SPDX-License-Identifier: MIT
#pragma once
#include <cstddef>
#include <span>
#include <vector>

#include "control/message.hpp"

/// What the source of a transfer says, dispatcher or server.
namespace tcpmig::control {

/// The datagrams of a transfer: n-1 DATA and, last, one COMMIT; each with at most `path_payload` bytes of snapshot.received (views
/// into it: the snapshot must outlive them). Sequence numbers and tags are put in by seal(). Throws std::length_error when the snapshot is larger
/// than WIRE_SNAPSHOT_MAX.
std::vector<Outgoing> transfer_messages(const Transfer& transfer, const Snapshot& snapshot);

/// The same for a whole connection: `payload` (whole.hpp) in parts, views into it. Throws std::length_error above WIRE_WHOLE_MAX.
std::vector<Outgoing> whole_messages(const Transfer& transfer, const Snapshot& snapshot,
                                     std::span<const std::byte> payload);
/// A COMMIT with nothing in it.
Outgoing bare_commit(const Transfer& transfer, const Snapshot& snapshot);
/// A COMMIT to the sender itself. The switch needs no payload.
Outgoing take_back_message(const Transfer& transfer, const Snapshot& snapshot);
/// Asks that the transfer of this COMMIT be never opened.
Outgoing abort_message(const Outgoing& commit);
/// A TCP segment of the client (header and data) that came to its former owner; `about`: its new one. `crafted`: made from bytes.
Outgoing segment_message(const Transfer& about, std::span<const std::byte> segment, bool crafted);
/// What such a segment may measure, header and data.
std::size_t segment_room(const sys::Endpoint& client);

}  // namespace tcpmig::control
