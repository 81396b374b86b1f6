// SPDX-License-Identifier: MIT
#include "policy/policy.hpp"

#include <algorithm>
#include <cctype>
#include <string_view>
#include <tuple>

namespace tcpmig::policy {
namespace {

bool equal_nocase(std::string_view a, std::string_view b) {
  return std::ranges::equal(
      a, b, [](unsigned char x, unsigned char y) { return std::tolower(x) == std::tolower(y); });
}

bool host_matches(std::string_view pattern, std::string_view host) {
  if (!pattern.starts_with("*.")) return equal_nocase(pattern, host);
  pattern.remove_prefix(1);  // ".example.org"
  return host.size() > pattern.size() &&
         equal_nocase(host.substr(host.size() - pattern.size()), pattern);
}

bool header_matches(const std::pair<std::string, std::string>& wanted,
                    const http::RequestHead& head) {
  const std::string* value = head.field(wanted.first);
  return value != nullptr && (wanted.second == "*" || *value == wanted.second);
}

}  // namespace

const config::Route* match(const config::Service& service, const http::RequestHead& head) {
  for (const config::Route& route : service.routes) {
    if (route.host && !host_matches(*route.host, head.host)) continue;
    if (route.path && *route.path != head.path) continue;
    if (route.prefix && !config::in_prefix(*route.prefix, head.path)) continue;
    if (route.method && *route.method != head.method) continue;
    if (route.header && !header_matches(*route.header, head)) continue;
    return &route;
  }
  return nullptr;
}

std::optional<std::size_t> choose(const config::Pool& pool, std::uint64_t turn,
                                  const std::set<std::size_t>& excluded,
                                  const std::function<Load(config::NodeId)>& load) {
  const std::size_t count = pool.servers.size();
  std::optional<std::size_t> best;
  std::tuple<bool, std::uint32_t> best_rank;
  for (std::size_t step = 0; step < count; ++step) {
    const std::size_t index = (turn + step) % count;
    if (excluded.contains(index)) continue;
    const Load known = load(pool.servers[index].node_id);
    const bool least = pool.algorithm == config::Algorithm::kLeastConnections;
    const std::tuple rank{!known.alive, least ? known.connections : 0U};
    if (!best || rank < best_rank) {
      best = index;
      best_rank = rank;
    }
  }
  return best;
}

std::set<std::size_t> without_agent(const config::Pool& pool,
                                    const std::function<Load(config::NodeId)>& load) {
  std::set<std::size_t> result;
  if (!pool.relay && pool.relay_fallback)
    for (std::size_t i = 0; i < pool.servers.size(); ++i)
      if (load(pool.servers[i].node_id).silent) result.insert(i);
  return result;
}

}  // namespace tcpmig::policy
