// SPDX-License-Identifier: MIT
#pragma once
#include <span>

#include "agent/control_port.hpp"
#include "agent/flow.hpp"
#include "control/heartbeat.hpp"
#include "control/node_network.hpp"

namespace tcpmig::agent {

/// What an agent says. One function for each message; an answer repeats the number of the question. To the switch, which asks by
/// ABORT after connections that nobody has heard of, "resumed" is RENEW and "aborted" is GONE.
class Answers {
 public:
  Answers(ControlPort& port, const config::Config& config, const config::Node& self,
          const control::NodeNetwork& network, Counters& counters)
      : port_(port), config_(config), self_(self), network_(network), counters_(counters) {}

  void resumed(const abi::wire_header& question, const sys::Endpoint& to,
               const abi::wire_resumed& stamps);
  void refused(const abi::wire_header& question, const sys::Endpoint& to, abi::wire_reason reason,
               std::uint32_t detail = 0, std::uint32_t current_generation = 0);
  void aborted(const abi::wire_header& question, const sys::Endpoint& to);
  /// A TCP segment (header and data) of a client whose transfer was refused.
  void handed_back(const abi::wire_header& question, const sys::Endpoint& to,
                   std::span<const std::byte> segment);
  void missing(const abi::wire_header& question, const sys::Endpoint& to,
               std::span<const std::uint16_t> parts);

  void gone(const abi::flow_key& flow, std::uint32_t generation);
  /// `port`: of the flow's socket here.
  void renew(const abi::flow_key& flow, std::uint32_t generation, std::uint16_t port);
  /// To the switch: this node is alive.
  void heartbeat(const control::Heartbeat& heartbeat);
  /// To every dispatcher.
  void load(std::uint32_t live);

 private:
  void tell_switch(std::uint8_t type, const abi::flow_key& flow, std::uint32_t generation,
                   std::uint16_t port = 0);
  void tell_switch(std::uint8_t type, const abi::wire_header& question);

  ControlPort& port_;
  const config::Config& config_;
  const config::Node& self_;
  const control::NodeNetwork& network_;
  Counters& counters_;
};

}  // namespace tcpmig::agent
