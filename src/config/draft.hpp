// SPDX-License-Identifier: MIT
#pragma once
#include <cstdint>
#include <vector>

#include "config/config.hpp"
#include "config/problems.hpp"

namespace tcpmig::config {

/// A configuration as read, not yet checked as a whole: each element of a list has its places at
/// the same index. What a reader could not read is empty, 0 or unset here, and has its Problem
/// already.
struct Draft {
  Config config;
  Places cluster, limits, timeouts;
  Resume resume = Resume::kAuto;  ///< of [agent]: of nodes that say nothing themselves
  std::vector<Places> switches, nodes, services, pools;
  std::vector<std::vector<Places>> routes;        ///< by service
  std::vector<std::vector<Places>> pool_servers;  ///< by pool
};

inline constexpr const char* kDefaultVpa4 = "100.64.0.0/10";
inline constexpr const char* kDefaultVpa6 = "fd7c::/64";

/// The highest node id whose block fits into an IPv4 prefix of this length.
unsigned highest_node(const sys::Prefix& vpa4);

/// True when every request that `later` matches is already matched by `earlier`.
bool covers(const Route& earlier, const Route& later);

/// Everything that takes more than one key to see. Resolves PoolServer::node_id.
void check(Draft& draft, Problems& problems);

}  // namespace tcpmig::config
