// SPDX-License-Identifier: MIT
#pragma once
#include <chrono>
#include <cstdint>

#include "control/message.hpp"
#include "control/node_network.hpp"

namespace tcpmig::control {

/// A node's heartbeat: what it tells the switch every kPause (bpf/shared/wire.h, HEARTBEAT), and what the switch's answers say. No I/O.
class Heartbeat {
 public:
  static constexpr std::chrono::milliseconds kPause{100};

  /// Draws the instance: the switch knows by it that the process was started anew.
  explicit Heartbeat(const NodeNetwork& network);

  /// The next one. `draining`: the node takes no new connections.
  [[nodiscard]] Outgoing message(bool draining) const;
  /// The switch's nearest address, IPv4 where there is one.
  [[nodiscard]] sys::Endpoint to() const;

  /// Takes an answer whose tag was checked. True: it comes from another boot of the switch than the answers before, which means that
  /// the switch has lost its table; or it is the first answer, and nobody knows. What is not newer than the last one is ignored.
  bool answered(const abi::wire_header& answer, std::chrono::steady_clock::time_point now);
  /// Of the switch; 0 = it has not answered yet.
  [[nodiscard]] std::uint32_t boot() const noexcept { return boot_; }
  /// Whether the switch has answered within the last second.
  [[nodiscard]] bool heard(std::chrono::steady_clock::time_point now) const;

 private:
  sys::Endpoint to_;
  std::uint32_t instance_ = 0;
  std::uint32_t boot_ = 0;
  std::uint64_t last_number_ = 0;
  std::chrono::steady_clock::time_point last_;
};

}  // namespace tcpmig::control
