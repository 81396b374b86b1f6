// SPDX-License-Identifier: MIT
#pragma once
#include <string>

#include <tcpmig/snapshot.hpp>

#include "shared/node_maps.h"

namespace tcpmig::conn {

/// The name of a socket's congestion control.
std::string dump_congestion(int fd);
/// Chooses it; one that this system has not, and the empty name, leave what there is.
void restore_congestion(int fd, const std::string& name);

/// What the application has set on a socket. `ipv6`: it talks IPv6.
SocketSettings dump_settings(int fd, bool ipv6);
/// The same from what the dump program has said of it, by one or two system calls instead of some twenty.
SocketSettings dump_settings(int fd, bool ipv6, const abi::tcp_settings& known);
/// After the sent bytes are in the queue and before the unsent ones: TCP_CORK holds back what follows it, TCP_NODELAY sends what is there. A
/// congestion control that this system has not stays the system's own.
void restore_settings(int fd, bool ipv6, const SocketSettings& settings);
/// The sizes of the buffers, and whether the kernel tunes them. Last, for the queues may want more (restore_received, ..) than a peer that goes on sending,
/// or an application that goes on writing, shall have: a connection that moves over and over would grow with each move.
void restore_buffers(int fd, const SocketSettings& settings);

}  // namespace tcpmig::conn
