// SPDX-License-Identifier: MIT
#pragma once
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <functional>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "config/config.hpp"
#include "shared/flow.h"
#include "shared/wire.h"
#include "sys/address.hpp"

/// A flow as a node names it: the client's endpoint and the node's own virtual private address (vip_port is 0).
namespace tcpmig::agent {

using Clock = std::chrono::steady_clock;  ///< CLOCK_MONOTONIC, as bpf_ktime_get_ns()
using TimePoint = Clock::time_point;
using Bytes = std::vector<std::byte>;

inline std::uint64_t nanoseconds(TimePoint when) {
  return static_cast<std::uint64_t>(when.time_since_epoch().count());
}

struct FlowHash {
  std::size_t operator()(const abi::flow_key& flow) const noexcept {
    return std::hash<std::string_view>{}({reinterpret_cast<const char*>(&flow), sizeof flow});
  }
};
struct FlowEqual {
  bool operator()(const abi::flow_key& a, const abi::flow_key& b) const noexcept {
    return std::memcmp(&a, &b, sizeof a) == 0;
  }
};
template <typename Value>
using FlowMap = std::unordered_map<abi::flow_key, Value, FlowHash, FlowEqual>;

/// The flow that a message is about, on node `self`.
abi::flow_key flow_of(const config::Config& config, config::NodeId self,
                      const abi::wire_header& header);
/// The flow of a connection between these two.
abi::flow_key flow_of(const sys::Endpoint& local, const sys::Endpoint& client);
sys::Endpoint client_of(const abi::flow_key& flow);
/// This end of the connection, when the server listens on `port`.
sys::Endpoint local_of(const abi::flow_key& flow, std::uint16_t port);
/// The service that the flow's virtual private address belongs to.
config::ServiceId service_of(const abi::flow_key& flow);

}  // namespace tcpmig::agent
