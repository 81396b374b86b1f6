// SPDX-License-Identifier: MIT
#include <linux/fib_rules.h>
#include <linux/if_addr.h>
#include <linux/rtnetlink.h>

#include <algorithm>
#include <cstring>

#include "sys/netlink.hpp"
#include "sys/netlink_message.hpp"

namespace tcpmig::sys {
namespace {

constexpr int kLoopbackIndex = 1;  // of every network namespace (LOOPBACK_IFINDEX in the kernel)

std::uint8_t family_of(const Address& address) {
  return static_cast<std::uint8_t>(address.family());
}
std::uint8_t byte(int value) { return static_cast<std::uint8_t>(value); }

/// What the kernel is told: host bits cleared, a local route in table local on lo. (Its bind()
/// looks in table local only.)
Route as_set(Route route) {
  route.destination = route.destination.network();
  if (!route.local) return route;
  if (route.table == RT_TABLE_MAIN) route.table = RT_TABLE_LOCAL;
  if (route.oif == 0) route.oif = kLoopbackIndex;
  return route;
}

/// As iproute2 chooses it. When deleting, NOWHERE is the wildcard.
std::uint8_t scope_of(const Route& route) {
  if (route.local) return RT_SCOPE_HOST;
  return route.gateway || !route.destination.address.is_ipv4() ? RT_SCOPE_UNIVERSE : RT_SCOPE_LINK;
}

void put_route(NetlinkRequest& request, const Route& route, std::uint8_t scope) {
  auto& header = request.header<rtmsg>();
  header.rtm_family = family_of(route.destination.address);
  header.rtm_dst_len = byte(route.destination.length);
  header.rtm_protocol = kRouteProtocol;
  header.rtm_scope = scope;
  header.rtm_type = route.local ? RTN_LOCAL : RTN_UNICAST;
  if (route.destination.length > 0) request.put_address(RTA_DST, route.destination.address);
  request.put_u32(RTA_TABLE, route.table);
  if (route.gateway) request.put_address(RTA_GATEWAY, *route.gateway);
  if (route.oif != 0) request.put_u32(RTA_OIF, static_cast<std::uint32_t>(route.oif));
}

/// Not when deleting: a route of ours is to go whatever its MTU is now.
void put_mtu(NetlinkRequest& request, const Route& route) {
  if (route.mtu == 0) return;
  request.nest(RTA_METRICS, [&] {
    request.put_u32(RTAX_LOCK, 1U << RTAX_MTU);
    request.put_u32(RTAX_MTU, route.mtu);
  });
}

/// Of RTA_METRICS.
std::uint32_t parse_mtu(const nlattr& metrics) {
  std::uint32_t mtu = 0;
  for_each_nested(metrics, [&](int type, const nlattr& attribute) {
    if (type == RTAX_MTU) mtu = attribute_u32(attribute);
  });
  return mtu;
}

/// Of RTA_CACHEINFO: such an answer speaks of what was learned of a path, too (an MTU among it).
bool expires(const nlattr& attribute) {
  rta_cacheinfo info{};
  if (mnl_attr_get_payload_len(&attribute) < sizeof info) return false;
  std::memcpy(&info, mnl_attr_get_payload(&attribute), sizeof info);
  return info.rta_expires != 0;
}

/// RTA_VIA: a gateway of the other family: struct rtvia, a family of two bytes and the address.
std::optional<Address> parse_via(const nlattr& attribute) {
  const auto* via = static_cast<const char*>(mnl_attr_get_payload(&attribute));
  in6_addr v6{};
  if (mnl_attr_get_payload_len(&attribute) != sizeof(rtvia) + sizeof v6) return {};
  std::memcpy(&v6, via + sizeof(rtvia), sizeof v6);
  return Address::from_v6(v6);
}

/// The route of a message whatever its type; `local` for type local.
Route parse_route(const nlmsghdr& message) {
  const auto& header = *static_cast<const rtmsg*>(mnl_nlmsg_get_payload(&message));
  Route route{.destination = {},
              .gateway = {},
              .table = header.rtm_table,
              .local = header.rtm_type == RTN_LOCAL};
  route.destination.address = header.rtm_family == AF_INET ? Address::from_v4({}) : Address{};
  route.destination.length = header.rtm_dst_len;
  bool learned = false;
  for_each_attribute(message, sizeof(rtmsg), [&](int type, const nlattr& attribute) {
    if (type == RTA_DST) route.destination.address = attribute_address(attribute);
    if (type == RTA_GATEWAY) route.gateway = attribute_address(attribute);
    if (type == RTA_VIA) route.gateway = parse_via(attribute);
    if (type == RTA_OIF) route.oif = static_cast<int>(attribute_u32(attribute));
    if (type == RTA_TABLE) route.table = attribute_u32(attribute);
    if (type == RTA_METRICS) route.mtu = parse_mtu(attribute);
    if (type == RTA_CACHEINFO) learned = expires(attribute);
  });
  if (learned) route.mtu = 0;
  return route;
}

bool leads_somewhere(const nlmsghdr& message) {
  const auto type = static_cast<const rtmsg*>(mnl_nlmsg_get_payload(&message))->rtm_type;
  return type == RTN_UNICAST || type == RTN_LOCAL || type == RTN_BROADCAST ||
         type == RTN_MULTICAST || type == RTN_ANYCAST;
}

/// Whether the kernel's route is the wanted one (as_set); an oif of 0 in `wanted` is the kernel's
/// choice.
bool is_same(const Route& wanted, Route there) {
  if (wanted.oif == 0) there.oif = 0;
  return wanted == there;
}

/// Every route of the wanted one's family and table.
std::vector<Route> routes_beside(int fd, std::uint32_t& sequence, const Route& wanted) {
  NetlinkRequest request(RTM_GETROUTE, NLM_F_DUMP);
  request.header<rtmsg>().rtm_family = family_of(wanted.destination.address);
  request.put_u32(RTA_TABLE, wanted.table);
  return dump<Route>(fd, "list routes", request, sequence, parse_route,
                     {ENOENT});  // ENOENT: no such table
}

void put_rule(NetlinkRequest& request, const Rule& rule) {
  auto& header = request.header<fib_rule_hdr>();
  header.family = family_of(rule.source.address);
  header.src_len = byte(rule.source.length);
  header.action = FR_ACT_TO_TBL;
  if (rule.source.length > 0) request.put_address(FRA_SRC, rule.source.network().address);
  request.put_u32(FRA_TABLE, rule.table);
  request.put_u32(FRA_PRIORITY, rule.priority);
  request.put(FRA_PROTOCOL, std::as_bytes(std::span(&kRouteProtocol, 1)));
}

void put_interface_address(NetlinkRequest& request, int ifindex, const Prefix& prefix) {
  auto& header = request.header<ifaddrmsg>();
  header.ifa_family = family_of(prefix.address);
  header.ifa_prefixlen = byte(prefix.length);
  header.ifa_index = static_cast<std::uint32_t>(ifindex);
  if (prefix.address.is_ipv4())
    request.put_address(IFA_ADDRESS, prefix.address);
  else
    header.ifa_flags = IFA_F_NODAD;
  request.put_address(IFA_LOCAL, prefix.address);
}

LinkAddress parse_interface_address(const nlmsghdr& message) {
  const auto& header = *static_cast<const ifaddrmsg*>(mnl_nlmsg_get_payload(&message));
  Address own;
  Address address;
  for_each_attribute(message, sizeof(ifaddrmsg), [&](int type, const nlattr& attribute) {
    if (type == IFA_LOCAL) own = attribute_address(attribute);
    if (type == IFA_ADDRESS)
      address = attribute_address(attribute);  // the peer's where IFA_LOCAL is there too
  });
  return {.ifindex = static_cast<int>(header.ifa_index),
          .prefix = {.address = own.is_set() ? own : address, .length = header.ifa_prefixlen}};
}

std::string on_link(const Prefix& prefix, int ifindex) {
  return prefix.str() + " on link " + std::to_string(ifindex);
}

}  // namespace

std::string to_string(const Route& route) {
  const Route set = as_set(route);
  return (set.local ? "local " : "") + set.destination.str() +
         (set.gateway ? " via " + set.gateway->str() : "") +
         (set.oif != 0 ? " dev #" + std::to_string(set.oif) : "") + " table " +
         std::to_string(set.table) + (set.mtu != 0 ? " mtu lock " + std::to_string(set.mtu) : "");
}

std::string to_string(const Rule& rule) {
  return "from " + rule.source.str() + " lookup " + std::to_string(rule.table) + " pref " +
         std::to_string(rule.priority);
}

bool Netlink::add_address(int ifindex, const Prefix& prefix) {
  NetlinkRequest request(RTM_NEWADDR, NLM_F_CREATE | NLM_F_EXCL);
  put_interface_address(request, ifindex, prefix);
  const auto outcome = exchange(fd_.get(), request, ++sequence_);
  if (outcome.error == EEXIST && std::ranges::any_of(addresses(), [&](const LinkAddress& there) {
        return there.ifindex == ifindex && there.prefix == prefix;
      }))
    return false;
  return succeeded("add address " + on_link(prefix, ifindex), outcome);
}

bool Netlink::remove_address(int ifindex, const Prefix& prefix) {
  NetlinkRequest request(RTM_DELADDR, 0);
  put_interface_address(request, ifindex, prefix);
  return succeeded("remove address " + on_link(prefix, ifindex),
                   exchange(fd_.get(), request, ++sequence_), {EADDRNOTAVAIL, ENODEV});
}

std::vector<LinkAddress> Netlink::addresses() {
  NetlinkRequest request(RTM_GETADDR, NLM_F_DUMP);
  request.header<ifaddrmsg>();
  return dump<LinkAddress>(fd_.get(), "list addresses", request, sequence_,
                           parse_interface_address);
}

bool Netlink::add_route(const Route& route) {
  const Route wanted = as_set(route);
  NetlinkRequest request(RTM_NEWROUTE, NLM_F_CREATE | NLM_F_EXCL);
  put_route(request, wanted, scope_of(wanted));
  put_mtu(request, wanted);
  const auto outcome = exchange(fd_.get(), request, ++sequence_);
  if (outcome.error == EEXIST &&
      std::ranges::any_of(routes_beside(fd_.get(), sequence_, wanted),
                          [&](const Route& there) { return is_same(wanted, there); }))
    return false;
  return succeeded("add route " + to_string(wanted), outcome);
}

bool Netlink::remove_route(const Route& route) {
  const Route wanted = as_set(route);
  NetlinkRequest request(RTM_DELROUTE, 0);
  put_route(request, wanted, RT_SCOPE_NOWHERE);
  return succeeded("remove route " + to_string(wanted), exchange(fd_.get(), request, ++sequence_),
                   {ESRCH, ENODEV});
}

bool Netlink::add_rule(const Rule& rule) {
  NetlinkRequest request(RTM_NEWRULE, NLM_F_CREATE | NLM_F_EXCL);
  put_rule(request, rule);
  return succeeded("add rule " + to_string(rule), exchange(fd_.get(), request, ++sequence_),
                   {EEXIST});
}

bool Netlink::remove_rule(const Rule& rule) {
  NetlinkRequest request(RTM_DELRULE, 0);
  put_rule(request, rule);
  return succeeded("remove rule " + to_string(rule), exchange(fd_.get(), request, ++sequence_),
                   {ENOENT});
}

std::optional<Route> Netlink::route_to(const Address& destination) {
  NetlinkRequest request(RTM_GETROUTE, 0);
  auto& header = request.header<rtmsg>();
  header.rtm_family = family_of(destination);
  header.rtm_dst_len = destination.is_ipv4() ? 32 : 128;
  if (destination.is_ipv4())
    header.rtm_flags = RTM_F_LOOKUP_TABLE;  // IPv6 names the table unasked, and refuses the flag
  request.put_address(RTA_DST, destination);
  std::optional<Route> found;
  const auto outcome = exchange(fd_.get(), request, ++sequence_, [&](const nlmsghdr& message) {
    if (leads_somewhere(message)) found = parse_route(message);
  });
  // EACCES: a "prohibit" route; EINVAL: a "blackhole" route
  succeeded("look up the route to " + destination.str(), outcome,
            {ENETUNREACH, EHOSTUNREACH, EACCES, EINVAL});
  if (found)
    found->destination = {.address = destination, .length = destination.is_ipv4() ? 32 : 128};
  return found;
}

}  // namespace tcpmig::sys
