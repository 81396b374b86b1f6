// SPDX-License-Identifier: MIT
// What takes more than one key to see: clashes, names that lead nowhere, routes that nothing
// reaches.
#include <algorithm>
#include <set>

#include "config/draft.hpp"
#include "shared/switch_maps.h"

namespace tcpmig::config {
namespace {

constexpr std::chrono::milliseconds kShortestHealth{300};

std::string line_of(Where where) { return "line " + std::to_string(where.line); }

/// Remembers where each value was first seen; a second one is a Problem.
class Unique {
 public:
  Unique(Problems& problems, std::string what, std::string fix)
      : problems_(problems), what_(std::move(what)), fix_(std::move(fix)) {}
  void add(const std::string& value, Where where) {
    const auto [first, is_new] = seen_.try_emplace(value, where);
    if (!is_new)
      problems_.add(
          where, what_ + " " + value + " is used twice, first in " + line_of(first->second), fix_);
  }

 private:
  Problems& problems_;
  std::string what_, fix_;
  std::map<std::string, Where> seen_;
};

void check_vpa(const Draft& draft, Problems& problems) {
  const auto low_bits = [](const sys::Prefix& prefix) {
    const abi::ip_address raw = prefix.address.raw();
    const int start = prefix.length + (prefix.address.is_ipv4() ? 96 : 0);
    for (int bit = start; bit < 128; ++bit)
      if ((raw.bytes[bit / 8] & (0x80 >> bit % 8)) != 0) return true;
    return false;
  };
  const sys::Prefix& v4 = draft.config.vpa4;
  if (!v4.address.is_ipv4() || v4.length < 8 || v4.length > abi::VPA4_BLOCK_LENGTH - 1 ||
      low_bits(v4))
    problems.add(draft.cluster.of("vpa4"),
                 v4.str() + " cannot hold the virtual private IPv4 addresses",
                 "write an IPv4 prefix of length 8 to 17 without host bits, as \"100.64.0.0/10\"");
  const sys::Prefix& v6 = draft.config.vpa6;
  if (!v6.address.is_ipv6() || v6.length != 64 || low_bits(v6))
    problems.add(draft.cluster.of("vpa6"),
                 v6.str() + " cannot hold the virtual private IPv6 addresses",
                 "write an IPv6 prefix of length 64 without host bits, as \"fd7c::/64\"");
}

void check_interfaces(const Switch& item, const Places& places, Problems& problems) {
  std::set<std::string> seen;
  for (const std::string& name : item.clients)
    if (!seen.insert(name).second)
      problems.add(places.of("clients"), "interface " + quote(name) + " is named twice",
                   "name it once");
  for (const std::string& name : item.nodes) {
    if (std::find(item.clients.begin(), item.clients.end(), name) != item.clients.end())
      problems.add(places.of("nodes"),
                   "interface " + quote(name) + " is in both \"clients\" and \"nodes\"",
                   "an interface leads to clients or to nodes: take it out of one list");
    else if (!seen.insert(name).second)
      problems.add(places.of("nodes"), "interface " + quote(name) + " is named twice",
                   "name it once");
  }
}

void check_names(const Draft& draft, Problems& problems) {
  const Config& config = draft.config;
  Unique names(problems, "name", "give every switch and node its own name");
  Unique ids(problems, "node id", "give every node its own id, never one that another node had");
  for (std::size_t i = 0; i < config.switches.size(); ++i) {
    const std::string& name = config.switches[i].name;
    if (!name.empty()) names.add(quote(name), draft.switches[i].of("name"));
    check_interfaces(config.switches[i], draft.switches[i], problems);
  }
  for (std::size_t i = 0; i < config.nodes.size(); ++i) {
    const Node& node = config.nodes[i];
    if (!node.name.empty()) names.add(quote(node.name), draft.nodes[i].of("name"));
    if (node.id != 0) ids.add(std::to_string(node.id), draft.nodes[i].of("id"));
  }
  Unique service_names(problems, "service name", "give every service its own name");
  Unique service_ids(problems, "service id",
                     "give every service its own id, never one that another had");
  for (std::size_t i = 0; i < config.services.size(); ++i) {
    const Service& service = config.services[i];
    if (!service.name.empty()) service_names.add(quote(service.name), draft.services[i].of("name"));
    if (service.id != 0) service_ids.add(std::to_string(service.id), draft.services[i].of("id"));
  }
  Unique pools(problems, "pool name", "give every pool its own name");
  for (std::size_t i = 0; i < config.pools.size(); ++i)
    if (!config.pools[i].name.empty())
      pools.add(quote(config.pools[i].name), draft.pools[i].of("name"));
}

/// Why a host or a service cannot have this address; empty when it can.
std::string unusable(const sys::Address& address) {
  const auto in = [&](const char* prefix) {
    return sys::Prefix::parse(prefix).value().contains(address);
  };
  if (address.is_ipv4()) {
    if (in("127.0.0.0/8")) return "a loopback address";
    if (in("0.0.0.0/8")) return "no host's address";
    if (in("224.0.0.0/4")) return "a multicast address";
    if (in("240.0.0.0/4")) return "a reserved address";
    return {};
  }
  if (in("::1/128")) return "a loopback address";
  if (in("ff00::/8")) return "a multicast address";
  if (in("fe80::/10")) return "a link-local address";
  return {};
}

/// Every address of the file has one owner, and none lies among the virtual private ones.
class AddressBook {
 public:
  AddressBook(const Config& config, Problems& problems) : config_(config), problems_(problems) {}

  bool usable(const sys::Address& address, Where where) {
    const std::string why = unusable(address);
    if (!why.empty())
      problems_.add(where, address.str() + " is " + why,
                    "write an address that packets can be routed to");
    const sys::Prefix& block = address.is_ipv4() ? config_.vpa4 : config_.vpa6;
    const bool inside = block.contains(address);
    if (inside)
      problems_.add(where, address.str() + " lies inside the virtual private prefix " + block.str(),
                    "choose another address, or another [cluster] " +
                        std::string(address.is_ipv4() ? "vpa4" : "vpa6"));
    return why.empty() && !inside;
  }

  void claim(const sys::Address& address, const std::string& owner, Where where) {
    if (!address.is_set() || !usable(address, where)) return;
    const auto [entry, is_new] = owners_.try_emplace(address, owner, where);
    if (is_new || entry->second.first == owner) return;
    problems_.add(where,
                  address.str() + " is also the address of " + entry->second.first + " (" +
                      line_of(entry->second.second) + ")",
                  "give each its own address");
  }

 private:
  const Config& config_;
  Problems& problems_;
  std::map<sys::Address, std::pair<std::string, Where>> owners_;
};

void check_addresses(const Draft& draft, Problems& problems) {
  const Config& config = draft.config;
  AddressBook book(config, problems);
  for (std::size_t i = 0; i < config.nodes.size(); ++i) {
    const Node& node = config.nodes[i];
    const Places& places = draft.nodes[i];
    book.claim(node.address4, "node " + quote(node.name), places.of("address4"));
    book.claim(node.address6, "node " + quote(node.name), places.of("address6"));
  }
  for (std::size_t i = 0; i < config.nodes.size(); ++i) {  // all nodes are behind the same switch
    book.claim(config.nodes[i].gateway4, "the switch (gateway)", draft.nodes[i].of("gateway4"));
    book.claim(config.nodes[i].gateway6, "the switch (gateway)", draft.nodes[i].of("gateway6"));
  }
  Unique endpoints(problems, "address and port", "two services need different VIPs or ports");
  for (std::size_t i = 0; i < config.services.size(); ++i) {
    const Service& service = config.services[i];
    for (const sys::Address& vip : {service.vip4, service.vip6}) {
      if (!vip.is_set()) continue;
      const Where where = draft.services[i].of(vip.is_ipv4() ? "vip4" : "vip6");
      book.claim(vip, "a service", where);
      endpoints.add(sys::Endpoint{vip, service.port}.str(), where);
    }
  }
}

void check_routes(const Draft& draft, std::size_t index, Problems& problems) {
  const Config& config = draft.config;
  const std::vector<Route>& routes = config.services[index].routes;
  const std::vector<Places>& places = draft.routes[index];
  std::vector<std::string> names;
  for (const Pool& pool : config.pools) names.push_back(pool.name);
  for (std::size_t i = 0; i < routes.size(); ++i) {
    if (!routes[i].pool.empty() && config.find_pool(routes[i].pool) == nullptr) {
      const std::string near = nearest(routes[i].pool, names);
      problems.add(places[i].of("pool"), "there is no pool " + quote(routes[i].pool),
                   near.empty() ? "add [[pool]] with name = " + quote(routes[i].pool)
                                : "did you mean " + quote(near) + "?");
    }
    for (std::size_t earlier = 0; earlier < i; ++earlier) {
      if (!places[earlier].sound || !places[i].sound || !covers(routes[earlier], routes[i]))
        continue;
      problems.add(places[i].table,
                   "this route is never reached: the one in " + line_of(places[earlier].table) +
                       " matches first",
                   "move it above that one, or take it away");
      break;
    }
  }
}

void check_pool(Draft& draft, std::size_t index, Problems& problems) {
  Config& config = draft.config;
  std::vector<std::string> names;
  for (const Node* server : config.with_role(Role::kServer)) names.push_back(server->name);
  Unique unique(problems, "server", "name each node and port once in a pool");
  for (std::size_t i = 0; i < config.pools[index].servers.size(); ++i) {
    PoolServer& server = config.pools[index].servers[i];
    if (server.node.empty()) continue;
    const Places& places = draft.pool_servers[index][i];
    unique.add(server.node + ":" + std::to_string(server.port), places.table);
    const Node* node = config.find_node(server.node);
    if (node == nullptr) {
      const std::string near = nearest(server.node, names);
      problems.add(places.of("node"), "there is no node " + quote(server.node),
                   near.empty() ? "add [[node]] with name = " + quote(server.node)
                                : "did you mean " + quote(near) + "?");
      continue;
    }
    if (node->role != Role::kServer)
      problems.add(places.of("node"), "node " + quote(server.node) + " is a dispatcher",
                   "a pool holds nodes with role = \"server\"");
    server.node_id = node->id;
  }
}

/// A flow's control datagrams travel over its own family: every node that may get a flow of a
/// service needs an address of each family that the service has.
void check_families(const Draft& draft, Problems& problems) {
  const Config& config = draft.config;
  std::set<std::pair<std::string, bool>> reported;
  const auto need = [&](const Service& service, const std::string& name) {
    const auto node = std::find_if(config.nodes.begin(), config.nodes.end(),
                                   [&](const Node& other) { return other.name == name; });
    if (node == config.nodes.end()) return;
    const Places& places = draft.nodes[static_cast<std::size_t>(node - config.nodes.begin())];
    if (!places.keys.contains("address4") && !places.keys.contains("address6"))
      return;  // said already
    for (const bool ipv4 : {true, false}) {
      const std::string key = ipv4 ? "address4" : "address6";
      if (!(ipv4 ? service.vip4 : service.vip6).is_set() || places.keys.contains(key)) continue;
      if (!reported.insert({name, ipv4}).second) continue;
      problems.add(places.table,
                   "node " + quote(name) + " has no " + key + ", which service " +
                       quote(service.name) + " needs for its " + (ipv4 ? "vip4" : "vip6"),
                   "add " + key + " (control datagrams travel over the flow's own family)");
    }
  };
  for (const Service& service : config.services) {
    for (const Node* dispatcher : config.with_role(Role::kDispatcher))
      need(service, dispatcher->name);
    for (const Route& route : service.routes)
      if (const Pool* pool = config.find_pool(route.pool))
        for (const PoolServer& server : pool->servers) need(service, server.node);
  }
}

void check_node_ids(const Draft& draft, Problems& problems) {
  const Config& config = draft.config;
  if (!config.vpa4.address.is_ipv4()) return;
  const bool ipv4 = std::any_of(config.services.begin(), config.services.end(),
                                [](const Service& service) { return service.vip4.is_set(); });
  const unsigned highest = highest_node(config.vpa4);
  if (highest == 0) return;  // said by check_vpa()
  for (std::size_t i = 0; ipv4 && i < config.nodes.size(); ++i)
    if (config.nodes[i].id > highest && config.nodes[i].address4.is_set())
      problems.add(
          draft.nodes[i].of("id"),
          "node id " + std::to_string(config.nodes[i].id) + " has no room in the IPv4 prefix " +
              config.vpa4.str(),
          "use an id from 1 to " + std::to_string(highest) + ", or a shorter [cluster] vpa4");
}

void check_present(const Draft& draft, Problems& problems) {
  const Config& config = draft.config;
  if (config.switches.empty())
    problems.add({}, "there is no [[switch]]", "add one with name, clients and nodes");
  if (config.with_role(Role::kDispatcher).empty())
    problems.add({}, "there is no dispatcher", "add a [[node]] with role = \"dispatcher\"");
  if (config.services.empty())
    problems.add({}, "there is no [[service]]", "add one with name, id, vip4 or vip6, and a route");
}

void check_timeouts(const Draft& draft, Problems& problems) {
  const Timeouts& t = draft.config.timeouts;
  const auto compare = [&](bool good, const char* key, const std::string& what,
                           const std::string& fix) {
    if (good) return;
    Where where = draft.timeouts.of(key);
    if (!draft.timeouts.keys.contains(key)) where = draft.timeouts.table;
    problems.add(where, what, fix);
  };
  compare(t.retry < t.transfer, "retry", "\"retry\" is not shorter than \"transfer\"",
          "a COMMIT must be repeatable within [timeouts] transfer");
  compare(t.health >= kShortestHealth, "health", "\"health\" is shorter than three heartbeats",
          "nodes are heard every 100ms, and one may be lost: make it 300ms or longer");
  compare(t.tombstone >= t.transfer, "tombstone", "\"tombstone\" is shorter than \"transfer\"",
          "it must outlive every repeat of a COMMIT: make it at least as long");
  compare(t.recovery >= std::chrono::milliseconds(500), "recovery", "\"recovery\" is too short",
          "nodes send a heartbeat each 100 ms, and must get through: make it at least \"500ms\"");
  compare(t.scan * 2 <= t.idle, "scan", "\"scan\" is longer than half of \"idle\"",
          "an agent renews leases at each scan: make it shorter, or \"idle\" longer");
}

std::string lower(std::string text) {
  for (char& c : text)
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
  return text;
}

bool covers_host(const Route& earlier, const Route& later) {
  if (!earlier.host) return true;
  if (!later.host) return false;
  const std::string a = lower(*earlier.host), b = lower(*later.host);
  return a == b || (a.starts_with("*.") && b.ends_with(a.substr(1)) && b.size() > a.size() - 1);
}

bool covers_path(const Route& earlier, const Route& later) {
  if (earlier.path && earlier.path != later.path) return false;
  if (!earlier.prefix) return true;
  const auto& narrower = later.path ? later.path : later.prefix;
  return narrower && in_prefix(*earlier.prefix, *narrower);
}

bool covers_header(const Route& earlier, const Route& later) {
  if (!earlier.header) return true;
  if (!later.header || lower(earlier.header->first) != lower(later.header->first)) return false;
  return earlier.header->second == "*" || earlier.header->second == later.header->second;
}

}  // namespace

unsigned highest_node(const sys::Prefix& vpa4) {
  const int bits = 32 - vpa4.length - abi::VPA4_SERVICE_BITS;
  if (bits <= 0) return 0;
  return std::min<unsigned>(abi::MAX_NODES, 1U << bits) - 1;
}

bool covers(const Route& earlier, const Route& later) {
  return covers_host(earlier, later) && covers_path(earlier, later) &&
         covers_header(earlier, later) && (!earlier.method || earlier.method == later.method);
}

void check(Draft& draft, Problems& problems) {
  check_present(draft, problems);
  check_vpa(draft, problems);
  check_names(draft, problems);
  check_addresses(draft, problems);
  for (std::size_t i = 0; i < draft.config.services.size(); ++i) check_routes(draft, i, problems);
  for (std::size_t i = 0; i < draft.config.pools.size(); ++i) check_pool(draft, i, problems);
  check_families(draft, problems);
  check_node_ids(draft, problems);
  check_timeouts(draft, problems);
}

}  // namespace tcpmig::config
