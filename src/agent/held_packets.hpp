// SPDX-License-Identifier: MIT
#pragma once
#include <chrono>
#include <cstddef>
#include <deque>

#include "agent/flow.hpp"

namespace tcpmig::agent {

/// Packets that came before their connection: kept in order for a short time, within limits.
class HeldPackets {
 public:
  struct Limits {
    std::size_t packets_per_flow = 64;
    std::size_t bytes = 16'777'216;
    std::chrono::milliseconds time{1'000};  ///< from the flow's first packet on
  };
  explicit HeldPackets(const Limits& limits) : limits_(limits) {}

  /// Whether there is room for one that may be of no use any more: that of a connection that has ended has a share only.
  [[nodiscard]] bool has_share(const abi::flow_key& flow, const Bytes& packet) const;
  /// False: no room; the packet is dropped (the client sends it again).
  bool add(const abi::flow_key& flow, Bytes packet, TimePoint now);
  /// Hands over what is held for a flow, oldest first.
  std::vector<Bytes> take(const abi::flow_key& flow);
  struct Expired {
    abi::flow_key flow{};
    std::vector<Bytes> packets;
  };
  /// Hands over the flows whose time is over.
  std::vector<Expired> expire(TimePoint now);

  [[nodiscard]] std::size_t packets() const noexcept { return packets_; }
  [[nodiscard]] std::size_t bytes() const noexcept { return bytes_; }

 private:
  struct Flow {
    std::uint64_t number = 0;  ///< which of the flow's entries in `deadlines_` is meant
    std::vector<Bytes> packets;
  };
  struct Deadline {
    TimePoint when;
    abi::flow_key flow;
    std::uint64_t number;
  };
  Limits limits_;
  FlowMap<Flow> flows_;
  std::deque<Deadline> deadlines_;  ///< by time, since every flow has the same
  std::uint64_t numbers_ = 0;
  std::size_t packets_ = 0;
  std::size_t bytes_ = 0;
};

}  // namespace tcpmig::agent
