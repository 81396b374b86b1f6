// SPDX-License-Identifier: MIT
#pragma once
#include "sys/address.hpp"
#include "sys/unique_fd.hpp"

namespace tcpmig::conn {

/// Both ends of a connected socket. The v4-mapped addresses of an AF_INET6 socket come as IPv4: on
/// the wire it is IPv4.
struct Endpoints {
  sys::Endpoint local;
  sys::Endpoint peer;
};
Endpoints dump_endpoints(int fd);

/// A new TCP socket of the family of `local` (`mapped`: AF_INET6 for an IPv4 address), in repair, ready for restore_endpoints(): may be
/// bound to an address that this machine does not have, and to a port that is in use.
sys::UniqueFd open_in_repair(const sys::Endpoint& local, bool mapped);
/// Binds. Before the sequence numbers are restored.
void restore_local(int fd, const sys::Endpoint& local, bool mapped);
/// Connects: in repair that sends nothing, the socket is ESTABLISHED at once. A route to the peer
/// must exist. After the sequence numbers.
void restore_peer(int fd, const sys::Endpoint& peer, bool mapped);

}  // namespace tcpmig::conn
