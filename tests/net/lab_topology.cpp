// SPDX-License-Identifier: MIT
// The lab's network without any role: plan, namespaces, routes, offloads, removal.
#include <fcntl.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <fstream>
#include <thread>

#include "catch.hpp"
#include "lab/generate.hpp"
#include "lab/payload.hpp"
#include "lab/plan.hpp"
#include "lab/process.hpp"
#include "lab/state.hpp"
#include "lab/stock_servers.hpp"
#include "lab/teardown.hpp"
#include "lab/topology.hpp"
#include "sys/netns.hpp"

using namespace tcpmig;
using namespace std::chrono_literals;

namespace {

/// A network of a name that no other test process uses.
struct Network {
  explicit Network(lab::Options options = {}) {
    options.name = "net-" + std::to_string(::getpid());
    plan = lab::make_plan(options);
    lab::write_state({plan.name, false, "", plan.nodes, {}});
    lab::build_topology(plan);
  }
  ~Network() { lab::tear_down(plan.name); }
  Network(const Network&) = delete;
  Network& operator=(const Network&) = delete;
  [[nodiscard]] std::string netns(const std::string& node) const {
    return lab::netns_name(plan.name, node);
  }
  lab::Plan plan;
};

void forward(const std::string& netns) {
  const sys::EnterNetns inside(netns);
  std::ofstream("/proc/sys/net/ipv4/ip_forward") << "1";
  std::ofstream("/proc/sys/net/ipv6/conf/all/forwarding") << "1";
}

std::string output_of(const std::string& netns, const std::vector<std::string>& command) {
  const lab::TemporaryDirectory directory;
  const auto file = directory.path() / "out";
  const sys::UniqueFd target(::creat(file.c_str(), 0600));
  const sys::UniqueFd inside = sys::open_netns(netns);
  REQUIRE(lab::wait_for(lab::start(
              {.argv = command, .netns_fd = inside.get(), .output = target.get()})) == 0);
  std::ifstream input(file);
  return {std::istreambuf_iterator<char>(input), {}};
}

}  // namespace

TEST_CASE("lab: names and numbers are checked") {
  CHECK_THROWS_AS(lab::make_plan({.name = ""}), std::invalid_argument);
  CHECK_THROWS_AS(lab::make_plan({.name = "Upper"}), std::invalid_argument);
  CHECK_THROWS_AS(lab::make_plan({.name = "../etc"}), std::invalid_argument);
  CHECK_THROWS_AS(lab::make_plan({.name = "default"}), std::invalid_argument);
  CHECK_THROWS_AS(lab::make_plan({.name = std::string(21, 'a')}), std::invalid_argument);
  CHECK_THROWS_AS(lab::make_plan({.servers = 0}), std::invalid_argument);
  CHECK_THROWS_AS(lab::make_plan({.dispatchers = 101}), std::invalid_argument);
}

TEST_CASE("lab: a namespace belongs to one lab") {
  CHECK(lab::node_of("a", "tcpmig-a-server1") == "server1");
  CHECK(lab::node_of("a", "tcpmig-a-b-server1").empty());
  CHECK(lab::node_of("a-b", "tcpmig-a-b-server1") == "server1");
  CHECK(lab::node_of("a", "tcpmig-a-fabric") == "fabric");
  CHECK(lab::node_of("a", "tcpmig-a-server").empty());
  CHECK(lab::node_of("a", "other").empty());
}

TEST_CASE("lab: the plan has the addresses of the contract") {
  const lab::Plan plan = lab::make_plan({.servers = 10, .dispatchers = 2, .clients = 2});
  const auto find = [&](const std::string& name) -> const lab::Node& {
    for (const lab::Node& node : plan.nodes)
      if (node.name == name) return node;
    throw std::out_of_range(name);
  };
  CHECK(find("client2").addresses.at(0).str() == "10.0.1.3");
  CHECK(find("dispatcher1").addresses.at(1).str() == "fd00:2::2");
  CHECK(find("server10").addresses.at(0).str() == "10.0.3.11");
  CHECK(find("server10").addresses.at(1).str() == "fd00:3::11");
  CHECK(find("switch1").addresses.size() == 6);
  CHECK(plan.ports.size() == 2 + 3 + 2 + 10);
}

TEST_CASE("lab: the configuration takes nodes from the flags and the rest from a file") {
  const lab::TemporaryDirectory directory;
  const auto file = directory.path() / "own.toml";
  const lab::Plan plan = lab::make_plan({.name = "x", .servers = 2});
  lab::write_text(file,
                  "[cluster]\nname = \"other\"\n[[node]]\nname = \"gone\"\nid = 9\n\n"
                  "[[service]]\nname = \"shop\"\nid = 7\nvip4 = \"203.0.113.20\"\nport = 8080\n"
                  "protocol = \"http\"\n[[service.route]]\nprefix = \"/\"\npool = \"p\"\n"
                  "[[pool]]\nname = \"p\"\nservers = [{ node = \"server2\", port = 81 }]\n"
                  "[timeouts]\nclosing = \"9s\"\n");
  const config::Config config = lab::make_config(plan, {.config_file = file}).config;
  CHECK(config.instance == "x");
  CHECK(config.nodes.size() == 3);
  CHECK(config.services.at(0).name == "shop");
  CHECK(config.pools.at(0).servers.at(0).port == 81);
  CHECK(config.timeouts.closing == 9s);

  const config::Config standard = lab::make_config(plan, {}).config;
  CHECK(standard.timeouts.closing == 2s);
  CHECK(standard.services.at(0).id == 1);
  CHECK(standard.pools.at(0).servers.size() == 2);

  lab::write_text(file,
                  "[[node]]\nname = \"gone\"\n\n[[pool]]\nname = \"p\"\nservers = [{ node = "
                  "\"gone\", port = 81 }]\n");
  try {
    lab::make_config(plan, {.config_file = file});
    FAIL("a pool of a node that is not there");
  } catch (const std::invalid_argument& error) {
    INFO(error.what());
    CHECK(std::string(error.what()).find("own.toml:6:") != std::string::npos);
  }

  // right by itself, wrong with what the lab adds: no line of the file is to blame
  lab::write_text(file, "cluster = 1\n");
  try {
    lab::make_config(plan, {.config_file = file});
    FAIL("a key that the lab needs as a table");
  } catch (const std::invalid_argument& error) {
    INFO(error.what());
    CHECK(std::string(error.what()).find("own.toml: together with the lab's own nodes") !=
          std::string::npos);
  }
}

TEST_CASE(
    "lab: clients reach servers by plain routing, both families, and removal leaves nothing") {
  std::string name;
  {
    const Network network;
    name = network.plan.name;
    forward(network.netns("switch1"));
    const sys::UniqueFd server = sys::open_netns(network.netns("server2"));
    lab::start({.argv = {"/usr/bin/python3", "-m", "http.server", "--bind", "::", "80"},
                .netns_fd = server.get(),
                .own_session = true});
    for (const char* address : {"10.0.3.3", "fd00:3::3"}) {
      const sys::Endpoint target{sys::Address::parse(address).value(), 80};
      CHECK(lab::wait_until(
          10s, [&] { return lab::can_connect(network.netns("client1"), target, 500ms); }));
    }
    CHECK_FALSE(lab::leftovers(name).empty());
  }
  CHECK(lab::leftovers(name).empty());
  CHECK_FALSE(lab::tear_down(name));
}

TEST_CASE("lab: offloads are changed for xdp only, and only at the switch's peers") {
  const auto datapath = GENERATE(config::Datapath::kTc, config::Datapath::kXdp);
  const Network network({.datapath = datapath});
  const bool xdp = datapath == config::Datapath::kXdp;
  const std::string fabric = network.netns("fabric");
  for (const std::string device : {"switch1-net1", "switch1-net2", "switch1-net3", "client1"}) {
    INFO(device);
    const std::string features = output_of(fabric, {"ethtool", "-k", device});
    const bool expected = xdp && device != "client1";
    CHECK((features.find("\ntx-checksumming: off") != std::string::npos) == expected);
    CHECK((features.find("\ngeneric-receive-offload: on") != std::string::npos) == expected);
  }
}

TEST_CASE("lab: a process lives until its last thread has ended") {
  const pid_t child = ::fork();
  if (child == 0) {                      // its first thread ends, another one stays
    ::prctl(PR_SET_PDEATHSIG, SIGKILL);  // also where the test fails
    std::thread([] { ::pause(); }).detach();
    ::syscall(SYS_exit, 0);
  }
  const std::string stat = "/proc/" + std::to_string(child) + "/stat";
  const auto is_zombie = [&] {
    std::string text;
    std::getline(std::ifstream(stat), text);
    return text.find(") Z ") != std::string::npos;
  };
  REQUIRE(lab::wait_until(10s, is_zombie));
  const auto process = lab::identify(child);
  REQUIRE(process);
  CHECK(lab::is_alive(*process));
  ::kill(child, SIGKILL);
  CHECK(lab::wait_until(10s, [&] { return !lab::is_alive(*process); }));
  CHECK(lab::poll_exit(child) == 128 + SIGKILL);
}

TEST_CASE("lab: processes are named by pid, start and program, and ended with a deadline") {
  const pid_t child = lab::start(
      {.argv = {"sh", "-c", "trap '' TERM; while :; do read x; done"}, .own_session = true});
  const auto process = lab::identify(child);
  REQUIRE(process);
  CHECK(lab::is_alive(*process));
  lab::ProcessId other = *process;
  other.start_time += 1;
  CHECK_FALSE(lab::is_alive(other));
  CHECK(lab::terminate({other}, 10ms).empty());
  CHECK(lab::is_alive(*process));
  CHECK(lab::terminate({*process}, 100ms).empty());  // it ignores SIGTERM
  CHECK_FALSE(lab::is_alive(*process));

  CHECK_THROWS_AS(lab::start({.argv = {"/no/such/program"}}), std::system_error);
  CHECK(lab::wait_for(lab::start({.argv = {"sh", "-c", "exit 3"}})) == 3);
  CHECK(lab::wait_for(lab::start({.argv = {"sh", "-c", "kill -9 $$"}})) == 128 + 9);
}
