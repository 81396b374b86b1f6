// SPDX-License-Identifier: MIT
#pragma once
#include <tcpmig/snapshot.hpp>

#include "agent/tickets.hpp"

namespace tcpmig::agent {

/// An accepted socket has what the program set on its listener (socket(7), tcp(7)): a migrated connection gets it from the ticket, which was
/// accepted there. Before the restore; `snapshot` also becomes AF_INET6 where the ticket is.
void take_likeness(Snapshot& snapshot, const Accepted& ticket, int ticket_fd);
/// The rest, which a snapshot has no place for: buffer sizes, timeouts, SO_OOBINLINE, SO_RCVLOWAT, TCP_LINGER2. What
/// the kernel refuses stays the system's own.
void give_likeness(int ticket_fd, int connection) noexcept;

}  // namespace tcpmig::agent
