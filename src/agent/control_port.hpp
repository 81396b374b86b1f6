// SPDX-License-Identifier: MIT
#pragma once
#include <array>
#include <functional>
#include <span>
#include <vector>

#include "agent/counters.hpp"
#include "config/config.hpp"
#include "control/message.hpp"
#include "sys/unique_fd.hpp"

namespace tcpmig::agent {

/// The UDP sockets on the control port of the node's own addresses. Never waits.
class ControlPort {
 public:
  /// Throws one clear sentence when the port is in use.
  ControlPort(const config::Config& config, const config::Node& self, const control::Secret& secret,
              Counters& counters);

  /// Seals and sends. What cannot be sent is counted: every message is repeated by who needs it.
  void send(control::Outgoing message, const sys::Endpoint& to);
  /// Hands over the datagrams that wait on one of descriptors(); at most kBatch of them. True: there may be more.
  bool receive(int fd,
               const std::function<void(std::span<const std::byte>, const sys::Endpoint&)>& take);

  [[nodiscard]] std::vector<int> descriptors() const;

 private:
  static constexpr std::size_t kBatch = 32;
  static constexpr std::size_t kDatagramMax = 2048;
  sys::UniqueFd ipv4_;
  sys::UniqueFd ipv6_;
  control::Sealer sealer_;
  Counters& counters_;
  std::array<std::array<std::byte, kDatagramMax>, kBatch> buffers_{};
};

}  // namespace tcpmig::agent
