// SPDX-License-Identifier: MIT
#pragma once
#include <tcpmig/snapshot.hpp>

namespace tcpmig::conn {

/// What the application has set on a socket. `ipv6`: an AF_INET6 socket.
SocketSettings dump_settings(int fd, bool ipv6);
/// After the sent bytes are in the queue and before the unsent ones: TCP_CORK holds back what follows it, TCP_NODELAY sends what is there. A
/// congestion control that this system has not stays the system's own.
void restore_settings(int fd, bool ipv6, const SocketSettings& settings);

}  // namespace tcpmig::conn
