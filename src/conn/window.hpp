// SPDX-License-Identifier: MIT
#pragma once
#include <tcpmig/snapshot.hpp>

namespace tcpmig::conn {

/// TCP_REPAIR_WINDOW (Linux 4.8). In repair.
RepairWindow dump_window(int fd);
void set_window(int fd, const RepairWindow& window);
/// Last, in repair: it must fit the sequence numbers, and what we announced must not shrink. A
/// snapshot that knows only the peer's window gets our own half from the new socket.
void restore_window(int fd, const Snapshot& snapshot);

}  // namespace tcpmig::conn
