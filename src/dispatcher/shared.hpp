// SPDX-License-Identifier: MIT
#pragma once
#include <array>
#include <atomic>
#include <memory>
#include <vector>

#include "config/config.hpp"
#include "control/grace_period.hpp"
#include "control/keys.hpp"
#include "control/message.hpp"
#include "control/node_network.hpp"
#include "dispatcher/stats.hpp"
#include "policy/policy.hpp"
#include "sys/tun.hpp"

namespace tcpmig::dispatcher {

/// What servers report of themselves (LOAD), and what they have been given since. Reports come from one thread.
class LoadTable {
 public:
  /// False: an old report, or a recorded one. `sequence` rises with every message of that node, also after its restart.
  bool report(config::NodeId node, std::uint64_t sequence, std::uint32_t connections);
  /// One more connection has been offered to it: until the next report it counts, or all of them would go to the
  /// server that was the least busy a moment ago.
  void assigned(config::NodeId node);
  [[nodiscard]] policy::Load get(config::NodeId node) const;

 private:
  std::uint64_t begun_ns_ = monotonic_ns();
  struct Entry {
    std::atomic<std::uint64_t> reported_ns{0};
    std::atomic<std::uint32_t> connections{0};
    std::atomic<std::uint32_t> assigned{0};
    std::uint64_t sequence = 0;
  };
  std::array<Entry, abi::MAX_NODES> entries_;
};

/// What all event loops of a dispatcher share. Everything in it may be used from any thread.
struct Shared {
  const config::Config& config;
  const config::Node& self;
  const control::Secret secret;
  const control::NodeNetwork& network;
  sys::Tun& tun;  ///< where captured segments go back into our own kernel
  Stats stats;
  LoadTable loads;
  control::GracePeriod grace;
  std::atomic<std::uint32_t> switch_boot{0};      ///< as it has last said; 0: not yet
  std::atomic<bool> stopping{false};              ///< no new transfer
  std::vector<std::atomic<std::uint64_t>> turns;  ///< by index of the pool in config.pools
  const unsigned workers;
  /// So many services that each is listened to by one event loop, not by all.
  const bool one_loop_each;

  [[nodiscard]] const config::Pool& pool(const config::Route& route) const {
    return *config.find_pool(route.pool);
  }
  std::uint64_t next_turn(const config::Pool& pool) {
    return turns[static_cast<std::size_t>(&pool - config.pools.data())].fetch_add(
        1, std::memory_order_relaxed);
  }
};

}  // namespace tcpmig::dispatcher
