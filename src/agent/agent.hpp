// SPDX-License-Identifier: MIT
#pragma once
#include <string>
#include <vector>

#include "config/config.hpp"

/// The role "agent" of a server node: programs, VPA block, opening of transfers, confirmations.
namespace tcpmig::agent {

/// Runs until SIGTERM or SIGINT (programs and tombstones stay); returns the exit code. Throws with one clear sentence when it cannot start.
int run(const config::Config& config, const config::Node& self);

/// Removes programs, pins, routes, rules and sysctls of this node's agent. Idempotent, also after a crash.
void down(const config::Config& config, const config::Node& self);

/// One thing that the agent needs of this machine.
struct Finding {
  std::string name;  ///< "kfunc", "tcp_syncookies", "rp_filter", "btf", "rights", ..
  bool ok = false;
  std::string detail;  ///< what was found
  std::string cost;    ///< what it costs when it is missing
  std::string fix;     ///< what to do
};
/// Probes (the kfunc by loading the program); changes nothing.
std::vector<Finding> check(const config::Config& config, const config::Node& self);

}  // namespace tcpmig::agent
