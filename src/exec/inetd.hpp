// SPDX-License-Identifier: MIT
#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "handover/handover.h"

namespace tcpmig::exec {

struct InetdOptions {
  std::uint16_t port = 0;            ///< listens on it, on all addresses of both families
  std::string user;                  ///< becomes this user once it listens; empty: stays as it is
  unsigned children = 100;           ///< at most; more connections wait in the listener's backlog
  std::vector<std::string> command;  ///< the program and its arguments
};

/// A super-server in the manner of inetd: runs the program once for each connection, ordinary or migrated, with the connection as its standard
/// input and output (standard error stays ours). The program learns who is there by getpeername(0) and by the environment: REMOTE_ADDR,
/// REMOTE_PORT, SERVER_ADDR, SERVER_PORT; and PROTO=TCP, TCPREMOTEIP, TCPREMOTEPORT, TCPLOCALIP, TCPLOCALPORT, as ucspi-tcp has them.
/// SERVER_ADDR of a migrated connection is the node's virtual private address.
/// Until SIGTERM or SIGINT; programs that run then go on. Returns the exit code. Throws std::system_error (the port is taken, ..),
/// sys::NotFound (no such program or user).
int serve_inetd(const handover_place& place, const InetdOptions& options);

}  // namespace tcpmig::exec
