// SPDX-License-Identifier: MIT
#include "switch/dispatcher_watch.hpp"

#include <spdlog/spdlog.h>

#include <algorithm>

#include "switch/reaper.hpp"
#include "switch/steering.hpp"
#include "switch/sweep.hpp"
#include "sys/bpf.hpp"

namespace tcpmig::steering {
namespace {

constexpr unsigned kGrace = 10;  // times timeouts.health, for a dispatcher that was never heard of
/// The programs note when a client was heard of by a clock that is up to a tick of the kernel (10 ms) late.
constexpr std::uint64_t kCoarse = 20'000'000;

bool is_heard(Health health) { return health == Health::kAlive || health == Health::kDraining; }

}  // namespace

DispatcherWatch::DispatcherWatch(const config::Config& config, Steering& steering, Reaper& reaper)
    : config_(config), steering_(steering), reaper_(reaper), started_ns_(monotonic_ns()) {
  for (const config::Node* node : config.with_role(config::Role::kDispatcher))
    choice_.chosen.insert(node->id);
}

void DispatcherWatch::look() {
  const int map_fd = steering_.map("liveness");
  const std::uint64_t now = monotonic_ns();
  std::map<config::NodeId, abi::node_liveness> liveness;
  std::map<std::uint32_t, Health> dispatchers;
  bool deaf = true;  // who hears of nobody knows nothing of anybody
  for (const config::Node& node : config_.nodes) {
    liveness[node.id] = sys::map_lookup<abi::node_liveness>(map_fd, std::uint32_t{node.id})
                            .value_or(abi::node_liveness{});
    const Health health = health_of(liveness[node.id], now, config_.timeouts.health);
    if (is_heard(health)) deaf = false;
    if (node.role != config::Role::kDispatcher) continue;
    dispatchers[node.id] = health;
    note(node, watched_[node.id], health);
  }
  const bool grace = now < started_ns_ + kGrace * nanoseconds(config_.timeouts.health);
  if (const auto choice = choose_dispatchers(dispatchers, grace); choice != choice_) {
    steering_.use_dispatchers(choice);
    choice_ = choice;
  }
  if (deaf) return;
  for (const config::Node* node : config_.with_role(config::Role::kDispatcher))
    end_clients(*node, watched_[node->id], liveness[node->id], now);
}

void DispatcherWatch::note(const config::Node& node, Watched& watched, Health health) const {
  if (watched.health == health) return;
  const bool worse = health == Health::kSilent || health == Health::kDead;
  spdlog::log(worse ? spdlog::level::warn : spdlog::level::info, "dispatcher {} is {}, it was {}",
              node.name, to_string(health), to_string(watched.health));
  watched.health = health;
}

/// After it has been taken out: what its clients send in between goes to another already.
void DispatcherWatch::end_clients(const config::Node& node, Watched& watched,
                                  const abi::node_liveness& liveness, std::uint64_t now_ns) {
  if (watched.health != Health::kDead) {
    watched.let_go = false;
  } else if (!watched.let_go) {
    reaper_.orphaned(node.id, now_ns, abi::SW_RESET_DEAD_DISPATCHER);
    watched.let_go = true;
  }
  if (!liveness.replaced || liveness.since_ns == watched.since_ns) return;
  watched.since_ns = liveness.since_ns;
  // A dispatcher is heard before it listens: who was there earlier was its predecessor's client.
  reaper_.orphaned(node.id, liveness.since_ns - kCoarse, abi::SW_RESET_RESTARTED_DISPATCHER);
}

}  // namespace tcpmig::steering
