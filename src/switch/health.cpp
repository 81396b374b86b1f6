// SPDX-License-Identifier: MIT
#include "switch/health.hpp"

#include <algorithm>

#include "switch/sweep.hpp"

namespace tcpmig::steering {

const char* to_string(Health health) {
  switch (health) {
    case Health::kUnknown:
      return "unknown";
    case Health::kAlive:
      return "alive";
    case Health::kDraining:
      return "draining";
    case Health::kSilent:
      return "silent";
    case Health::kDead:
      return "dead";
  }
  return "?";
}

Health health_of(const abi::node_liveness& liveness, std::uint64_t now_ns,
                 std::chrono::milliseconds timeout) {
  if (liveness.heard_ns == 0) return Health::kUnknown;
  const std::uint64_t patience = nanoseconds(timeout);
  if (liveness.heard_ns + kDeadAfter * patience < now_ns) return Health::kDead;
  if (liveness.heard_ns + patience < now_ns) return Health::kSilent;
  return liveness.draining ? Health::kDraining : Health::kAlive;
}

DispatcherChoice choose_dispatchers(const std::map<std::uint32_t, Health>& all, bool grace) {
  DispatcherChoice choice;
  const bool known =
      std::ranges::any_of(all, [](const auto& one) { return one.second == Health::kAlive; });
  for (const auto& [id, health] : all) {
    const bool good = known ? health == Health::kAlive || (health == Health::kUnknown && grace)
                            : health != Health::kDraining;
    if (good) choice.chosen.insert(id);
    if (known && health == Health::kDead) choice.down.insert(id);
  }
  if (choice.chosen.empty())
    for (const auto& [id, health] : all) choice.chosen.insert(id);
  return choice;
}

}  // namespace tcpmig::steering
