// SPDX-License-Identifier: MIT
#pragma once
#include <chrono>
#include <cstdint>
#include <map>
#include <set>

#include "shared/switch_maps.h"

/// What the heartbeats of nodes say of them, and what follows for the dispatchers. Pure functions.
namespace tcpmig::steering {

enum class Health {
  kUnknown,   ///< no heartbeat since the maps were made
  kAlive,     ///< heard within timeouts.health
  kDraining,  ///< alive, and takes no new connections
  kSilent,    ///< not heard for timeouts.health: no new connections
  kDead,      ///< not heard for kDeadAfter times as long: its clients are let go
};
/// A machine that is busy may be late with a heartbeat; to reset its clients for that would be worse than to wait.
inline constexpr unsigned kDeadAfter = 3;

const char* to_string(Health health);

Health health_of(const abi::node_liveness& liveness, std::uint64_t now_ns,
                 std::chrono::milliseconds timeout);

/// Where clients go.
struct DispatcherChoice {
  std::set<std::uint32_t> chosen;  ///< new connections, by Maglev
  std::set<std::uint32_t> down;    ///< what is bound to these goes to another
  bool operator==(const DispatcherChoice&) const = default;
};

/// `all`: every dispatcher of the configuration. While one is known to be alive, those that are not get no new connections, and the
/// dead ones keep none. Those that were never heard of count as alive for as long as `grace` (they may be starting), and are never
/// taken for dead: they may be of a version without heartbeats. Where none is known to be alive, nothing better is known than the
/// configuration: all stay (but those that say themselves that they are draining), since it may be us who are deaf.
DispatcherChoice choose_dispatchers(const std::map<std::uint32_t, Health>& all, bool grace);

}  // namespace tcpmig::steering
