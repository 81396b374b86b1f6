// SPDX-License-Identifier: MIT
#include "switch/host.hpp"

#include <algorithm>
#include <set>

#include "switch/datapath.hpp"
#include "sys/errors.hpp"

namespace tcpmig::steering {
namespace {

bool contains(const std::vector<std::string>& names, const std::string& name) {
  return std::find(names.begin(), names.end(), name) != names.end();
}

/// Some interfaces have no IPv6 (or go away meanwhile): then there is nothing to keep.
std::optional<std::string> sysctl(const std::string& name) {
  try {
    return sys::read_sysctl(name);
  } catch (const std::exception&) {
    return {};
  }
}

/// With slashes: an interface's name may have dots (eth0.5).
std::string conf(const std::string& family, const std::string& interface, const std::string& key) {
  return "net/" + family + "/conf/" + interface + "/" + key;
}

/// Says to the ledger that an entry it may hold is still wanted; changes nothing.
void still_wanted(sys::Ledger& ledger, const std::string& name) {
  if (const auto value = sysctl(name)) ledger.set_sysctl(name, *value);
}

/// rp_filter of an interface counts as the larger of its own and that of `all`.
void set_rp_filter(sys::Ledger& ledger, const std::vector<std::string>& others,
                   const std::vector<std::string>& ours) {
  const std::string all = conf("ipv4", "all", "rp_filter");
  const std::string of_all = sysctl(all).value_or("0");
  for (const std::string& interface : others) {
    const std::string name = conf("ipv4", interface, "rp_filter");
    if (sysctl(name).value_or(of_all) < of_all)
      ledger.set_sysctl(name, of_all);
    else
      still_wanted(ledger, name);
  }
  ledger.set_sysctl(all, "0");
  for (const std::string& interface : ours)
    ledger.set_sysctl(conf("ipv4", interface, "rp_filter"), "0");
}

/// Forwarding on. The kernel then sets conf.*.forwarding, and when it goes off again too
/// (devinet_sysctl_forward, addrconf_fixup_forwarding), and IPv4 accept_redirects of `all` to the
/// opposite. What that would not give back is written down before: `left_by_kernel` goes in as our
/// value, and the ledger puts the original over it once forwarding is off again.
void set_forwarding(sys::Ledger& ledger, const std::string& family, const std::string& all,
                    const std::vector<std::string>& others) {
  const auto before = sysctl(all);
  if (!before) return;  // a kernel without IPv6
  const auto keep = [&](const std::string& name, const std::string& original,
                        const std::string& left_by_kernel) {
    if (*before == "0" && sysctl(name) == original)
      ledger.set_sysctl(name, left_by_kernel);
    else
      still_wanted(ledger, name);
  };
  for (const std::string& interface : others) keep(conf(family, interface, "forwarding"), "1", "0");
  if (family == "ipv4") keep(conf(family, "all", "accept_redirects"), "0", "1");
  if (family == "ipv6")  // a host that forwards ignores router advertisements unless this is 2
    for (const std::string& interface : others)
      keep(conf(family, interface, "accept_ra"), "1", "2");
  ledger.set_sysctl(all, "1");
}

}  // namespace

Host::Host(sys::Netlink& netlink, const config::Switch& self)
    : netlink_(netlink), self_(self), links_(netlink.links()) {}

void Host::require_interfaces() const {
  std::string missing;
  for (const std::string& interface : interfaces(self_))
    if (ifindex(interface) == 0) missing += (missing.empty() ? "" : ", ") + interface;
  if (missing.empty()) return;
  throw sys::WrongSetup("no such interface: " + missing + " (named in [[switch]] \"" + self_.name +
                        "\" of the configuration)");
}

int Host::ifindex(const std::string& interface) const {
  for (const sys::Link& link : links_)
    if (link.name == interface) return link.index;
  return 0;
}

std::string Host::name(int ifindex) const {
  for (const sys::Link& link : links_)
    if (link.index == ifindex) return link.name;
  return {};
}

/// The interface must be one of those declared as leading to nodes.
Hop Host::hop(const sys::Address& address, std::string& trouble) const {
  if (!address.is_set()) return {};
  const auto route = netlink_.route_to(address);
  if (!route) {
    trouble = address.str() + " cannot be reached: there is no route";
    return {};
  }
  const std::string interface = name(route->oif);
  if (contains(self_.nodes, interface))
    return {route->oif, route->gateway.value_or(address), route->mtu};
  trouble = address.str() + " is reached through " + interface +
            ", which is not among the `nodes` of [[switch]] \"" + self_.name + "\"";
  return {};
}

Reach Host::reach(const config::Node& node) const {
  Reach result;
  result.hop4 = hop(node.address4, result.trouble);
  result.hop6 = hop(node.address6, result.trouble);
  if (result.hop4.ifindex != 0 && result.hop6.ifindex != 0 &&
      result.hop4.ifindex != result.hop6.ifindex)
    result.trouble =
        "its IPv4 and its IPv6 address are reached through different interfaces: "
        "its packets are accepted on " +
        name(result.hop4.ifindex) + " only";
  return result;
}

std::vector<sys::Address> Host::own_addresses() const {
  std::vector<sys::Address> found;
  for (const sys::LinkAddress& address : netlink_.addresses())
    if (contains(self_.nodes, name(address.ifindex))) found.push_back(address.prefix.address);
  std::sort(found.begin(), found.end());
  found.erase(std::unique(found.begin(), found.end()),
              found.end());  // link-local: one may be on two links
  return found;
}

void Host::set_sysctls(sys::Ledger& ledger) const {
  const std::vector<std::string> ours = interfaces(self_);
  std::vector<std::string> all{"default"}, others{"default"};
  for (const sys::Link& link : links_) {
    all.push_back(link.name);
    if (!contains(ours, link.name)) others.push_back(link.name);
  }
  set_forwarding(ledger, "ipv4", "net/ipv4/ip_forward", all);
  set_forwarding(ledger, "ipv6", conf("ipv6", "all", "forwarding"), all);
  set_rp_filter(ledger, others, ours);
}

std::uint32_t Host::mtu_of(const sys::Route& route) const {
  if (route.mtu != 0) return route.mtu;
  for (const sys::Link& link : links_)
    if (link.index == route.oif) return link.mtu;
  return 0;
}

/// VIPs of one family, by the first of `dispatchers`. What does not fit the route to a flow's owner
/// is given to the kernel as it came, addressed to the VIP; it answers "fragmentation needed" by the
/// VIP's route, which must therefore be no wider than that of any node.
std::vector<sys::Route> Host::vip_routes(const config::Config& config, bool ipv4,
                                         const std::vector<sys::Route>& dispatchers,
                                         const std::vector<sys::Route>& all) const {
  std::vector<sys::Route> routes;
  if (dispatchers.empty()) return routes;
  const auto smallest =
      std::ranges::min(all, {}, [&](const sys::Route& route) { return mtu_of(route); });
  sys::Route route = dispatchers.front();
  if (mtu_of(smallest) < mtu_of(route)) route.mtu = mtu_of(smallest);
  std::set<sys::Address> vips;  // one may have several services
  for (const config::Service& service : config.services) {
    const sys::Address& vip = ipv4 ? service.vip4 : service.vip6;
    if (!vip.is_set() || !vips.insert(vip).second) continue;
    route.destination = {vip, ipv4 ? 32 : 128};
    routes.push_back(route);
  }
  return routes;
}

std::vector<sys::Route> Host::wanted_routes(const config::Config& config) const {
  std::vector<sys::Route> routes;
  for (const bool ipv4 : {true, false}) {
    std::vector<sys::Route> all, dispatchers;
    for (const config::Node& node : config.nodes) {
      const Reach reached = reach(node);
      const Hop& hop = ipv4 ? reached.hop4 : reached.hop6;
      if (!hop.next) continue;
      all.push_back({.destination = ipv4 ? config::vpa4_block(config, node.id)
                                         : config::vpa6_block(config, node.id),
                     .gateway = hop.next,
                     .oif = hop.ifindex,
                     .mtu = hop.route_mtu});
      if (node.role == config::Role::kDispatcher) dispatchers.push_back(all.back());
    }
    routes.insert(routes.end(), all.begin(), all.end());
    for (const sys::Route& route : vip_routes(config, ipv4, dispatchers, all))
      routes.push_back(route);
  }
  return routes;
}

}  // namespace tcpmig::steering
