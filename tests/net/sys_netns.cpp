// SPDX-License-Identifier: MIT
#include <signal.h>
#include <sys/wait.h>

#include <fstream>
#include <iostream>
#include <thread>

#include "catch.hpp"
#include "sys/check.hpp"
#include "sys/ledger.hpp"
#include "sys/role_lock.hpp"
#include "sys_support.hpp"

namespace fs = std::filesystem;
namespace sys = tcpmig::sys;
using namespace sys_test;
using Catch::Matchers::Contains;

TEST_CASE("netns: made with lo up, found by name, removed") {
  if (cannot_run_here()) return;
  const std::string name = "tmt-sys-" + std::to_string(::getpid()) + "-made";
  const auto before = fs::read_symlink("/proc/thread-self/ns/net");
  sys::create_netns(name);
  CHECK(fs::read_symlink("/proc/thread-self/ns/net") == before);
  {
    const sys::EnterNetns inside(name);
    CHECK(fs::read_symlink("/proc/thread-self/ns/net") != before);
    const auto links = sys::Netlink().links();
    REQUIRE_FALSE(links.empty());
    CHECK(links.front().name == "lo");
    CHECK(links.front().up);
  }
  CHECK(fs::read_symlink("/proc/thread-self/ns/net") == before);
  CHECK_THROWS_WITH(sys::create_netns(name), Contains("File exists"));
  CHECK(sys::remove_netns(name));
  CHECK_FALSE(sys::remove_netns(name));
  CHECK_THROWS_WITH(sys::open_netns(name), Contains(name));
}

TEST_CASE("netns: a half-made leftover is removed") {
  if (cannot_run_here()) return;
  const Namespace makes_the_directory("other");
  const std::string name = "tmt-sys-" + std::to_string(::getpid()) + "-half";
  std::ofstream("/run/netns/" + name).flush();
  CHECK_THROWS(sys::create_netns(name));
  CHECK_THROWS(sys::EnterNetns(name));
  CHECK(sys::remove_netns(name));
  CHECK_FALSE(fs::exists("/run/netns/" + name));
}

TEST_CASE("netns: names that are paths are refused") {
  for (const char* name : {"", ".", "..", "a/b", "../x"}) {
    CHECK_THROWS_AS(sys::create_netns(name), std::invalid_argument);
    CHECK_THROWS_AS(sys::remove_netns(name), std::invalid_argument);
  }
}

TEST_CASE("netns: a socket stays in the namespace it was made in") {
  if (cannot_run_here()) return;
  const Namespace space("stay");
  const auto netlink = [&] {
    const auto inside = space.enter();
    return std::make_unique<sys::Netlink>();
  }();
  netlink->create_bridge("tmtbr0");
  CHECK(netlink->find_link("tmtbr0"));
  CHECK_FALSE(sys::Netlink().find_link("tmtbr0"));
}

TEST_CASE("netns: sysctls are those of the calling thread's namespace") {
  if (cannot_run_here()) return;
  const Namespace space("sysctl");
  const std::string here = sys::read_sysctl("net.ipv4.ip_default_ttl");
  std::string there;
  std::thread([&] {
    const auto inside = space.enter();
    sys::Netlink netlink;
    const fs::path file = fs::temp_directory_path() / (space.name() + ".json");
    sys::Ledger ledger(file, netlink);
    ledger.set_sysctl("net.ipv4.ip_default_ttl", "77");
    there = sys::read_sysctl("net.ipv4.ip_default_ttl");
    ledger.undo();
    CHECK(sys::read_sysctl("net.ipv4.ip_default_ttl") == "64");
  }).join();
  CHECK(there == "77");
  CHECK(sys::read_sysctl("net.ipv4.ip_default_ttl") == here);
  CHECK_THROWS(sys::read_sysctl("net.ipv4.no_such_thing"));
}

namespace {

/// Runs `work` in a child that then dies by kill -9.
void run_and_kill(const std::function<void()>& work) {
  const pid_t child = sys::check("fork", ::fork());
  if (child == 0) {
    try {
      work();
    } catch (const std::exception& error) {
      std::cerr << error.what() << '\n';
      ::_exit(1);
    }
    ::kill(::getpid(), SIGKILL);
  }
  int status = 0;
  sys::check("waitpid", ::waitpid(child, &status, 0));
  REQUIRE(WIFSIGNALED(status));
}

struct Wanted {
  sys::Route block{.destination = prefix("100.64.64.0/18"), .gateway = {}, .local = true};
  sys::Route block6{.destination = prefix("fd7c::1:0/112"), .gateway = {}, .local = true};
  sys::Route way{.destination = prefix("0.0.0.0/0"), .gateway = address("10.9.0.2"), .table = 7000};
  sys::Rule rule{.source = prefix("100.64.64.0/18"), .table = 7000, .priority = 1000};
  sys::Rule rule6{.source = prefix("fd7c::1:0/112"), .table = 7000, .priority = 1000};
};

void take_in(sys::Ledger& ledger) {
  const Wanted wanted;
  ledger.set_sysctl("net.ipv4.ip_forward", "1");
  ledger.set_sysctl("net.ipv4.tcp_rmem", "4096 32768 6291456");
  ledger.add_address("l0", prefix("10.9.0.77/24"));
  ledger.add_route(wanted.block);
  ledger.add_route(wanted.block6);
  ledger.add_route(wanted.way);
  ledger.add_rule(wanted.rule);
  ledger.add_rule(wanted.rule6);
}

/// What take_in() changes, as the kernel has it: for comparison.
std::string host_state(sys::Netlink& netlink) {
  std::string state =
      sys::read_sysctl("net.ipv4.ip_forward") + "; " + sys::read_sysctl("net.ipv4.tcp_rmem");
  for (const sys::LinkAddress& there : netlink.addresses())
    if (!prefix("fe80::/10").contains(there.prefix.address)) state += "; " + there.prefix.str();
  for (const char* to : {"100.64.65.1", "fd7c::1:7", "192.0.2.1"}) {
    const auto route = netlink.route_to(address(to));
    state += std::string("; ") + (route ? to_string(*route) : "unreachable");
  }
  return state;
}

}  // namespace

TEST_CASE("ledger: everything is given back after kill -9") {
  if (cannot_run_here()) return;
  const Pair pair;
  const fs::path file = fs::temp_directory_path() / (pair.left.name() + ".ledger.json");
  const auto inside = pair.left.enter();
  sys::Netlink netlink;
  const std::string before = host_state(netlink);
  run_and_kill([&] {
    sys::Netlink own;
    sys::Ledger ledger(file, own);
    take_in(ledger);
  });
  const std::string changed = host_state(netlink);
  CHECK(changed != before);
  CHECK_THAT(changed, Contains("10.9.0.77/24") && Contains("local 100.64.65.1/32") &&
                          Contains("local fd7c::1:7/128"));
  run_and_kill([&] {  // a second start takes it over, and changes nothing
    sys::Netlink own;
    sys::Ledger ledger(file, own);
    ledger.begin_adoption();
    take_in(ledger);
    ledger.finish_adoption();
  });
  CHECK(host_state(netlink) == changed);
  sys::Ledger(file, netlink).undo();
  CHECK(host_state(netlink) == before);
  CHECK_FALSE(fs::exists(file));
  const Wanted wanted;
  CHECK_FALSE(netlink.remove_rule(wanted.rule));
  CHECK_FALSE(netlink.remove_rule(wanted.rule6));
  CHECK_FALSE(netlink.remove_route(wanted.way));
}

TEST_CASE("ledger: what was there before stays") {
  if (cannot_run_here()) return;
  const Pair pair;
  const fs::path file = fs::temp_directory_path() / (pair.left.name() + ".ledger.json");
  const auto inside = pair.left.enter();
  sys::Netlink netlink;
  const Wanted wanted;
  netlink.add_route(wanted.way);
  netlink.add_rule(wanted.rule);
  sys::Ledger ledger(file, netlink);
  ledger.add_address("l0", prefix("10.9.0.1/24"));
  ledger.add_address("l0", prefix("fd09::1/64"));
  ledger.add_route(wanted.way);
  ledger.add_rule(wanted.rule);
  CHECK_FALSE(fs::exists(file));
  ledger.undo();
  CHECK(netlink.remove_route(wanted.way));
  CHECK(netlink.remove_rule(wanted.rule));
  CHECK(holds_within(std::chrono::seconds(5), [&] { return pair.delivers(); }));
  CHECK_THROWS_WITH(ledger.add_address("no-such", prefix("10.1.1.1/24")), Contains("no-such"));
  CHECK_FALSE(fs::exists(file));
}

TEST_CASE("ledger: an adoption replaces a route by another way to the same place") {
  if (cannot_run_here()) return;
  const Pair pair;
  const fs::path file = fs::temp_directory_path() / (pair.left.name() + ".ledger.json");
  const auto inside = pair.left.enter();
  sys::Netlink netlink;
  const sys::Route before{.destination = prefix("192.0.2.0/24"), .gateway = address("10.9.0.2")};
  const sys::Route after{.destination = prefix("192.0.2.0/24"), .gateway = address("10.9.0.3")};
  sys::Ledger(file, netlink).add_route(before);
  sys::Ledger ledger(file, netlink);
  CHECK_THROWS_WITH(ledger.add_route(after), Contains("File exists"));
  ledger.begin_adoption();
  ledger.expect_routes({&after, 1});
  CHECK(netlink.route_to(address("192.0.2.1"))->gateway == address("10.9.0.2"));  // until its turn
  ledger.add_route(after);
  ledger.finish_adoption();
  CHECK(netlink.route_to(address("192.0.2.1"))->gateway == address("10.9.0.3"));
  ledger.remove_route(before);  // not held: nothing happens
  CHECK(netlink.route_to(address("192.0.2.1")));
  ledger.remove_route(after);
  CHECK_FALSE(netlink.route_to(address("192.0.2.1")));
  CHECK_FALSE(fs::exists(file));
}

TEST_CASE("role lock: a second start names the first") {
  if (cannot_run_here()) return;
  const sys::RolePaths paths{"tcpmig-test-" + std::to_string(::getpid()), "server1"};
  {
    const sys::RoleLock first(paths, "agent");
    const std::string message = "agent of node server1 is already running (pid " +
                                std::to_string(::getpid()) + "): stop it first";
    CHECK_THROWS_WITH(sys::RoleLock(paths, "agent"), message);
    CHECK_NOTHROW(sys::RoleLock(paths, "dispatcher"));
    fs::remove_all(paths.run());  // someone tidies up: the next one is not locked out, nor fooled
    CHECK_NOTHROW(sys::RoleLock(paths, "agent"));
  }
  CHECK_NOTHROW(sys::RoleLock(paths, "agent"));
  fs::remove_all(paths.run().parent_path());
}

TEST_CASE("role paths: no dot reaches bpffs") {
  const sys::RolePaths paths{"default", "server1.example.org"};
  CHECK(paths.pins("agent") == "/sys/fs/bpf/tcpmig/default/server1:example:org/agent");
  CHECK(paths.socket("agent") == "/run/tcpmig/default/server1.example.org/agent.sock");
}

TEST_CASE("ledger: many routes are written down at once, and given back") {
  if (cannot_run_here()) return;
  const Pair pair;
  const fs::path file = fs::temp_directory_path() / (pair.left.name() + ".ledger.json");
  const auto inside = pair.left.enter();
  sys::Netlink netlink;
  std::vector<sys::Route> routes;
  for (int i = 0; i < 600; ++i)
    routes.push_back({.destination = prefix("198.18." + std::to_string(i / 200) + "." +
                                            std::to_string(i % 200 + 1) + "/32"),
                      .gateway = address("10.9.0.2")});
  const auto recorded = [&] {
    std::ifstream input(file);
    const std::string text{std::istreambuf_iterator<char>(input), {}};
    std::size_t count = 0;
    for (auto at = text.find("198.18."); at != std::string::npos; at = text.find("198.18.", at + 1))
      ++count;
    return count;
  };

  netlink.add_route(routes[7]);  // was there
  {
    sys::Ledger broken_off(file, netlink);
    broken_off.expect_routes(routes);
    for (std::size_t i = 0; i < 3; ++i) broken_off.add_route(routes[i]);
    broken_off.undo();
    CHECK_FALSE(fs::exists(file));
    CHECK_FALSE(netlink.remove_route(routes[0]));
    CHECK(netlink.route_to(routes[7].destination.address)->gateway == address("10.9.0.2"));
  }
  sys::Ledger ledger(file, netlink);
  ledger.expect_routes(routes);
  CHECK(recorded() == routes.size());
  for (const sys::Route& route : routes) ledger.add_route(route);
  CHECK(recorded() == routes.size() - 1);
  ledger.undo();
  CHECK_FALSE(fs::exists(file));
  CHECK(netlink.remove_route(routes[7]));
  for (const sys::Route& route : routes) CHECK_FALSE(netlink.remove_route(route));

  run_and_kill([&] {
    sys::Netlink own;
    sys::Ledger half(file, own);
    half.expect_routes(routes);
    for (std::size_t i = 0; i < routes.size() / 2; ++i) half.add_route(routes[i]);
  });
  CHECK(recorded() == routes.size());
  sys::Ledger(file, netlink).undo();
  CHECK_FALSE(fs::exists(file));
  for (const sys::Route& route : routes) CHECK_FALSE(netlink.remove_route(route));
}
