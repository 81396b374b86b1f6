// SPDX-License-Identifier: MIT
#include <netinet/in.h>
#include <sys/socket.h>

#include "catch.hpp"
#include "sys/check.hpp"
#include "sys_support.hpp"

namespace sys = tcpmig::sys;
using namespace sys_test;
using Catch::Matchers::Contains;

TEST_CASE("netlink: veth, bridge, mtu, rename, move, remove") {
  if (cannot_run_here()) return;
  const Namespace one("one");
  const Namespace two("two");
  const UniqueFd two_fd = sys::open_netns(two.name());
  const auto inside = one.enter();
  sys::Netlink netlink;
  netlink.create_veth("tmt0", "tmt1", two_fd.get());
  netlink.create_bridge("tmtbr");
  netlink.set_master("tmt0", "tmtbr");
  netlink.set_link("tmt0", true, 1400);
  const auto link = netlink.find_link("tmt0");
  REQUIRE(link);
  CHECK(link->up);
  CHECK(link->mtu == 1400);
  CHECK(link->mac.size() == 6);
  CHECK_FALSE(netlink.find_link("tmt1"));
  CHECK(netlink.links().size() >= 3);
  netlink.set_link("tmt0", false);
  CHECK_FALSE(netlink.find_link("tmt0")->up);
  netlink.rename_link("tmt0", "tmt9");
  CHECK(netlink.find_link("tmt9")->index == link->index);
  netlink.move_link("tmt9", two_fd.get());
  CHECK_FALSE(netlink.find_link("tmt9"));
  {
    const auto in_two = two.enter();
    sys::Netlink other;
    CHECK(other.find_link("tmt9"));
    CHECK(other.find_link("tmt1"));
    CHECK(other.remove_link("tmt9"));
    CHECK_FALSE(other.find_link("tmt1"));
  }
  CHECK(netlink.remove_link("tmtbr"));
  CHECK_FALSE(netlink.remove_link("tmtbr"));
}

TEST_CASE("netlink: errors name the attempt and carry the kernel's words") {
  if (cannot_run_here()) return;
  const Namespace space("errors");
  const auto inside = space.enter();
  sys::Netlink netlink;
  netlink.create_bridge("tmtbr");
  CHECK_THROWS_WITH(netlink.create_bridge("tmtbr"), "create bridge tmtbr: File exists");
  CHECK_THROWS_WITH(netlink.set_link("none", true),
                    Contains("set link none up") && Contains("No such device"));
  CHECK_THROWS_WITH(netlink.set_master("tmtbr", "none"), Contains("none"));
  CHECK_THROWS_WITH(netlink.create_bridge("a-name-that-is-too-long"),
                    Contains("a-name-that-is-too-long"));
  CHECK_THROWS(netlink.create_bridge(std::string(5000, 'x')));
  CHECK_THROWS_WITH(
      netlink.add_route({.destination = prefix("192.0.2.0/24"), .gateway = address("10.1.1.1")}),
      Contains("add route 192.0.2.0/24 via 10.1.1.1") && Contains("(Nexthop has invalid gateway)"));
}

TEST_CASE("netlink: addresses come and go, IPv6 without duplicate detection") {
  if (cannot_run_here()) return;
  const Namespace space("addresses");
  const auto inside = space.enter();
  sys::Netlink netlink;
  netlink.create_veth("tmt0", "tmt1", -1);
  netlink.set_link("tmt1", true);
  netlink.set_link("tmt0", true);
  const int index = netlink.find_link("tmt0").value().index;
  for (const char* text : {"10.1.2.3/24", "fd00:1::3/64"}) {
    CHECK(netlink.add_address(index, prefix(text)));
    CHECK_FALSE(netlink.add_address(index, prefix(text)));
    const auto all = netlink.addresses();
    CHECK(std::count_if(all.begin(), all.end(), [&](const sys::LinkAddress& a) {
            return a.ifindex == index && a.prefix == prefix(text);
          }) == 1);
    CHECK_NOTHROW(
        bound_socket(SOCK_STREAM, {prefix(text).address, 80}));  // tentative: could not be bound
    CHECK(netlink.remove_address(index, prefix(text)));
    CHECK_FALSE(netlink.remove_address(index, prefix(text)));
  }
  netlink.add_address(index, prefix("fd00:1::3/64"));
  CHECK_THROWS_WITH(netlink.add_address(index, prefix("fd00:1::3/80")), Contains("File exists"));
  CHECK_THROWS_WITH(netlink.add_address(9999, prefix("10.1.2.3/24")), Contains("No such device"));
}

TEST_CASE("netlink: routes, and what the kernel would do") {
  if (cannot_run_here()) return;
  const Pair pair;
  const auto inside = pair.left.enter();
  sys::Netlink netlink;
  for (const auto& [destination, gateway, inner, outer] :
       {std::tuple{"192.0.2.0/24", "10.9.0.2", "192.0.2.7", "192.0.3.1"},
        std::tuple{"2001:db8:1::/48", "fd09::2", "2001:db8:1::7", "2001:db8:2::1"}}) {
    const sys::Route route{.destination = prefix(destination), .gateway = address(gateway)};
    CHECK_FALSE(netlink.route_to(address(inner)));
    CHECK(netlink.add_route(route));
    CHECK_FALSE(netlink.add_route(route));
    const auto way = netlink.route_to(address(inner));
    REQUIRE(way);
    CHECK(way->gateway == address(gateway));
    CHECK(way->oif == pair.left_index);
    CHECK(way->table == 254);
    CHECK_FALSE(way->local);
    CHECK_FALSE(netlink.route_to(address(outer)));
    sys::Route other = route;
    other.gateway = address(route.destination.address.is_ipv4() ? "10.9.0.9" : "fd09::9");
    CHECK_THROWS_WITH(netlink.add_route(other),
                      Contains("add route " + std::string(destination)) && Contains("File exists"));
    CHECK_FALSE(netlink.remove_route(other));
    CHECK(netlink.remove_route(route));
    CHECK_FALSE(netlink.remove_route(route));
  }
  CHECK(netlink.route_to(address("10.9.0.1"))->local);
  const auto neighbour = netlink.route_to(address("fd09::2"));
  REQUIRE(neighbour);
  CHECK_FALSE(neighbour->gateway);
  CHECK(neighbour->oif == pair.left_index);
}

TEST_CASE("netlink: a route may have an MTU of its own") {
  if (cannot_run_here()) return;
  const Pair pair;
  const auto inside = pair.left.enter();
  sys::Netlink netlink;
  for (const auto& [destination, gateway] :
       {std::pair{"192.0.2.0/24", "10.9.0.2"}, std::pair{"2001:db8:1::/48", "fd09::2"}}) {
    const sys::Route route{
        .destination = prefix(destination), .gateway = address(gateway), .mtu = 1400};
    CHECK(netlink.add_route(route));
    CHECK_FALSE(netlink.add_route(route));
    CHECK(netlink.route_to(route.destination.address)->mtu == 1400);
    sys::Route other = route;
    other.mtu = 0;
    CHECK_THROWS_WITH(netlink.add_route(other), Contains("File exists"));
    CHECK(sys::to_string(route).ends_with("mtu lock 1400"));
    CHECK(netlink.remove_route(route));
    CHECK_FALSE(netlink.remove_route(route));
  }
}

TEST_CASE("netlink: a default route and host bits") {
  if (cannot_run_here()) return;
  const Pair pair;
  const auto inside = pair.left.enter();
  sys::Netlink netlink;
  for (const auto& [everything, gateway, somewhere] :
       {std::tuple{"0.0.0.0/0", "10.9.0.2", "8.8.8.8"},
        std::tuple{"::/0", "fd09::2", "2001:4860::1"}}) {
    const sys::Route route{
        .destination = prefix(everything), .gateway = address(gateway), .oif = pair.left_index};
    CHECK(netlink.add_route(route));
    CHECK_FALSE(netlink.add_route(route));
    CHECK(netlink.route_to(address(somewhere))->gateway == address(gateway));
    CHECK(netlink.remove_route(route));
  }
  const sys::Route sloppy{.destination = prefix("192.0.2.7/24"), .gateway = address("10.9.0.2")};
  CHECK(netlink.add_route(sloppy));
  CHECK(netlink.remove_route(
      {.destination = prefix("192.0.2.0/24"), .gateway = address("10.9.0.2")}));
}

TEST_CASE("netlink: a foreign route or rule that looks like ours is not removed") {
  if (cannot_run_here()) return;
  const Pair pair;
  const auto inside = pair.left.enter();
  sys::Netlink netlink;
  const sys::Route route{.destination = prefix("192.0.2.0/24"), .gateway = address("10.9.0.2")};
  const sys::Route route6{.destination = prefix("2001:db8:1::/48"), .gateway = address("fd09::2")};
  const sys::Rule rule{.source = prefix("100.64.64.0/18"), .table = 7000, .priority = 1000};
  REQUIRE(
      std::system(
          "ip route add 192.0.2.0/24 via 10.9.0.2 && ip route add 2001:db8:1::/48 via fd09::2 && "
          "ip rule add from 100.64.64.0/18 lookup 7000 pref 1000") == 0);
  CHECK_FALSE(netlink.add_route(route));
  CHECK_FALSE(netlink.remove_route(route));
  CHECK(netlink.route_to(address("192.0.2.1")));
  CHECK_FALSE(netlink.add_route(route6));
  CHECK_FALSE(netlink.remove_route(route6));
  CHECK(netlink.route_to(address("2001:db8:1::1")));
  CHECK_FALSE(netlink.remove_rule(rule));
  CHECK(netlink.add_rule(rule));  // beside the foreign one: the kernel tells them apart by protocol
  CHECK(netlink.remove_rule(rule));
  CHECK_FALSE(netlink.remove_rule(rule));
  CHECK(std::system("ip rule del from 100.64.64.0/18 lookup 7000 pref 1000") == 0);
}

TEST_CASE("netlink: routes that lead nowhere") {
  if (cannot_run_here()) return;
  const Pair pair;
  const auto inside = pair.left.enter();
  sys::Netlink netlink;
  for (const char* type : {"unreachable", "prohibit", "blackhole"}) {
    REQUIRE(std::system(("ip route add " + std::string(type) + " 192.0.2.0/24 && ip -6 route add " +
                         type + " 2001:db8:1::/48")
                            .c_str()) == 0);
    CHECK_FALSE(netlink.route_to(address("192.0.2.1")));
    CHECK_FALSE(netlink.route_to(address("2001:db8:1::1")));
    REQUIRE(std::system(("ip route del " + std::string(type) + " 192.0.2.0/24 && ip -6 route del " +
                         type + " 2001:db8:1::/48")
                            .c_str()) == 0);
  }
}

TEST_CASE("netlink: rules by source select a table") {
  if (cannot_run_here()) return;
  const Pair pair;
  const auto inside = pair.left.enter();
  sys::Netlink netlink;
  for (const char* source : {"100.64.64.0/18", "fd7c::1:0/112"}) {
    const sys::Rule rule{.source = prefix(source), .table = 7000, .priority = 1000};
    CHECK(netlink.add_rule(rule));
    CHECK_FALSE(netlink.add_rule(rule));
    sys::Rule other = rule;
    other.table = 7001;
    CHECK_FALSE(netlink.remove_rule(other));
    CHECK(netlink.remove_rule(rule));
    CHECK_FALSE(netlink.remove_rule(rule));
  }
}

TEST_CASE("netlink: replies from a block leave by the block's own table") {
  if (cannot_run_here()) return;
  const Pair pair;
  const auto inside = pair.left.enter();
  sys::Netlink netlink;
  // A listener in the block, and no route back but in table 7000
  netlink.add_route({.destination = prefix("100.64.64.0/18"), .gateway = {}, .local = true});
  netlink.add_rule({.source = prefix("100.64.64.0/18"), .table = 7000, .priority = 1000});
  netlink.add_route(
      {.destination = prefix("0.0.0.0/0"), .gateway = address("10.9.0.2"), .table = 7000});
  CHECK_FALSE(netlink.route_to(address("198.51.100.1")));
  const UniqueFd listener = bound_socket(SOCK_STREAM, {address("0.0.0.0"), 80});
  const auto in_right = pair.right.enter();
  sys::Netlink other;
  other.add_address(1, prefix("198.51.100.1/32"));
  other.add_route({.destination = prefix("100.64.0.0/10"), .gateway = address("10.9.0.1")});
  UniqueFd client = bound_socket(SOCK_DGRAM, {address("198.51.100.1"), 0});
  client.reset(sys::check("socket", ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)));
  const auto [from, from_length] = Endpoint{address("198.51.100.1"), 0}.to_sockaddr();
  sys::check("bind", ::bind(client.get(), reinterpret_cast<const sockaddr*>(&from), from_length));
  const auto [to, to_length] = Endpoint{address("100.64.70.9"), 80}.to_sockaddr();
  CHECK(::connect(client.get(), reinterpret_cast<const sockaddr*>(&to), to_length) == 0);
  const UniqueFd accepted = accepted_socket(listener);
  CHECK(name_of(accepted) == Endpoint{address("100.64.70.9"), 80});
}

TEST_CASE("netlink: a local block route takes in every address") {
  if (cannot_run_here()) return;
  const Namespace space("block");
  const auto inside = space.enter();
  sys::Netlink netlink;
  const sys::Route block{.destination = prefix("100.64.64.0/18"), .gateway = {}, .local = true};
  const sys::Route block6{.destination = prefix("fd7c::1:0/112"), .gateway = {}, .local = true};
  CHECK_THROWS(bound_socket(SOCK_STREAM, {address("100.64.64.1"), 80}));
  CHECK(netlink.add_route(block));
  CHECK_FALSE(netlink.add_route(block));
  CHECK(netlink.add_route(block6));
  CHECK_FALSE(netlink.add_route(block6));
  for (const char* text : {"100.64.64.0", "100.64.64.1", "100.64.127.255"}) {
    const UniqueFd listener = bound_socket(SOCK_STREAM, {address(text), 80});
    CHECK_NOTHROW(connected_socket({address(text), 80}));
    CHECK(netlink.route_to(address(text))->local);
  }
  CHECK_THROWS(bound_socket(SOCK_STREAM, {address("100.64.128.0"), 80}));
  // IPv6: reached without more, bound with IPV6_FREEBIND only
  CHECK_THROWS(bound_socket(SOCK_STREAM, {address("fd7c::1:1"), 81}));
  const UniqueFd any = bound_socket(SOCK_STREAM, {address("::"), 80});
  CHECK_NOTHROW(connected_socket({address("fd7c::1:ffff"), 80}));
  const UniqueFd free(sys::check("socket", ::socket(AF_INET6, SOCK_STREAM | SOCK_CLOEXEC, 0)));
  const int on = 1;
  sys::check("IPV6_FREEBIND",
             ::setsockopt(free.get(), IPPROTO_IPV6, IPV6_FREEBIND, &on, sizeof on));
  const auto [storage, length] = Endpoint{address("fd7c::1:1"), 81}.to_sockaddr();
  CHECK(::bind(free.get(), reinterpret_cast<const sockaddr*>(&storage), length) == 0);
  CHECK(netlink.remove_route(block));
  CHECK(netlink.remove_route(block6));
  CHECK_THROWS(bound_socket(SOCK_STREAM, {address("100.64.64.1"), 82}));
}
