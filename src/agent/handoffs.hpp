// SPDX-License-Identifier: MIT
#pragma once
#include <map>

#include <tcpmig/resume.hpp>

#include "agent/openings.hpp"
#include "sys/unique_fd.hpp"

namespace tcpmig::agent {

/// Connections that are handed to a program of ours: restored by TCP_REPAIR, and given away as a descriptor over the Unix socket (SOCK_SEQPACKET)
/// that the pool server names. Needs neither a listener nor the kfunc.
class Handoffs {
 public:
  /// `deliver`: gives the kernel a packet as if received (the FIN of a client that has closed).
  Handoffs(const config::Config& config, const config::Node& self, Deliver deliver,
           Counters& counters);

  /// Is this port one of those?
  [[nodiscard]] bool serves(std::uint16_t port) const { return paths_.contains(port); }
  /// Restores and gives away; the tombstone is claimed. The connection exists afterwards, unless there is a refusal.
  std::optional<Refusal> open(const Arrival& arrival);

 private:
  /// A connected socket, kept for the next time; throws std::system_error.
  int connection(std::uint16_t port);
  void give(std::uint16_t port, int fd, const std::string& note);

  Deliver deliver_;
  Counters& counters_;
  std::map<std::uint16_t, std::string> paths_;
  std::map<std::uint16_t, sys::UniqueFd> connections_;
};

}  // namespace tcpmig::agent
