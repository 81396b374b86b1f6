// SPDX-License-Identifier: MIT
#pragma once
#include <cstddef>
#include <cstdint>
#include <functional>
#include <optional>
#include <set>

#include "config/config.hpp"
#include "http/request_head.hpp"

/// Pure functions: request + state -> server.
namespace tcpmig::policy {

/// The first route of the service whose conditions all hold; nullptr: none (404).
const config::Route* match(const config::Service& service, const http::RequestHead& head);

/// What is known of a server's node.
struct Load {
  bool alive = false;  ///< it reported within the last second
  std::uint32_t connections = 0;
  bool silent = false;  ///< it has not reported for so long that no agent can be there
};

/// The server for the next connection: an index into pool.servers, not in `excluded` (servers that have refused this connection).
/// Servers whose node is not alive come last, but do come. round_robin: `turn` counts connections of this pool; least_connections: the fewest live
/// connections, `turn` decides among equals. nullopt: all are excluded.
std::optional<std::size_t> choose(const config::Pool& pool, std::uint64_t turn,
                                  const std::set<std::size_t>& excluded,
                                  const std::function<Load(config::NodeId)>& load);

/// Servers that nothing can be moved to: `silent`, in a pool that may relay instead. Indices into pool.servers.
std::set<std::size_t> without_agent(const config::Pool& pool,
                                    const std::function<Load(config::NodeId)>& load);

}  // namespace tcpmig::policy
