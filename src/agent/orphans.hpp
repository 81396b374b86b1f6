// SPDX-License-Identifier: MIT
#pragma once
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <list>

#include "agent/flow.hpp"

namespace tcpmig::agent {

/// Flows whose packets keep coming while no connection does: the switch says that we own them, and nobody will ever open them (this node has
/// restarted, a refusal has crossed with the switch's word). Never silence for ever: their clients get in the end what TCP would have
/// answered at once.
///
/// A client that waits sends the same segment again and again. That is what is watched for: a new connection from the same port
/// begins with another sequence number, and is given its time anew.
class Orphans {
 public:
  static constexpr std::size_t kMost =
      4096;  ///< flows watched; the one that was longest without a packet makes room

  explicit Orphans(std::chrono::milliseconds patience) : patience_(patience) {}

  /// A packet came for which there is no socket and no transfer. True: it has been coming for longer than any transfer takes.
  bool overdue(const abi::flow_key& flow, std::uint32_t seq, TimePoint now);
  /// Its connection has come.
  void forget(const abi::flow_key& flow);

 private:
  struct Watched {
    abi::flow_key flow{};
    std::uint32_t seq = 0;
    TimePoint first;
  };
  std::chrono::milliseconds patience_;
  std::list<Watched> watched_;  ///< the latest first
  FlowMap<std::list<Watched>::iterator> by_flow_;
};

}  // namespace tcpmig::agent
