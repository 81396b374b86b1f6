// SPDX-License-Identifier: MIT
#pragma once
#include <optional>

#include "config/config.hpp"
#include "sys/address.hpp"
#include "sys/unique_fd.hpp"

namespace tcpmig::agent {

/// A TCP connection of the agent to a listener of this node: it makes the program that listens accept, by whatever means it waits, and the program's
/// library recognises it and asks for the migrated connection instead (handover/handover.h). Closed by RST: nothing is left in TIME_WAIT, and
/// whoever has accepted it without knowing sees a client that went away.
struct Ticket {
  sys::UniqueFd fd;
  sys::Endpoint from;  ///< this end: the node's own virtual private address
  sys::Endpoint to;    ///< the listener's address and port
  bool knocked =
      false;  ///< established, and its one line sent: also a listener with TCP_DEFER_ACCEPT has it

  /// Goes on with connect() or its line; true: knocked. Throws std::system_error (ECONNREFUSED: nobody listens).
  bool advance();
};

/// Begins one to `listener`, an address of the node's own block; non-blocking. Throws std::system_error.
Ticket issue_ticket(const config::Config& config, const config::Node& self,
                    const sys::Endpoint& listener);

/// What an accepted socket says of itself; nullopt: it is connected no more, or no TCP socket.
struct Accepted {
  sys::Endpoint from;
  sys::Endpoint to;
  bool ipv6_socket = false;  ///< AF_INET6, also where it talks IPv4
};
std::optional<Accepted> look_at(int fd);
/// The four-tuple alone proves nothing: one can be made in another network namespace.
bool in_same_namespace(int a, int b);

}  // namespace tcpmig::agent
