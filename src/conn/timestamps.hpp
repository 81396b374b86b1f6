// SPDX-License-Identifier: MIT
#pragma once
#include <cstdint>

#include <tcpmig/snapshot.hpp>

namespace tcpmig::conn {

/// A TSval not below any that this socket has sent (at most two ticks above). TCP_TIMESTAMP gives
/// the clock with its lowest bit taken for a flag (Linux 6.7: ticks of 1 us): the clock may be one
/// above, and a TSval that goes back is dropped by the peer (PAWS).
std::uint32_t dump_tsval(int fd);
/// Lets the socket's clock go on from tsval_now. In repair, connected, option restored. Throws
/// where the kernel cannot tick in microseconds and must. TCP_REPAIR has no way to restore
/// ts_recent: it is zero until the peer's next segment.
void restore_timestamps(int fd, const Timestamps& timestamps);

}  // namespace tcpmig::conn
