// SPDX-License-Identifier: MIT
#include <unistd.h>

#include <filesystem>
#include <fstream>

#include "catch.hpp"
#include "config_samples.hpp"

using namespace tcpmig;
using namespace std::chrono_literals;
using config_samples::kGood;
using config_samples::replaced;

namespace {

config::Config parsed(const std::string& text) {
  auto result = config::parse(text, "/etc/x/t.toml");
  if (!result) FAIL(result.error().at(0).str());
  return *result;
}

sys::Address address(const char* text) { return sys::Address::parse(text).value(); }

}  // namespace

TEST_CASE("config: the file becomes values, names are resolved") {
  const config::Config c = parsed(kGood);
  CHECK(c.file == "/etc/x/t.toml");
  CHECK(c.instance == "default");
  CHECK(c.secret_file == "/etc/x/secret");
  CHECK(c.control_port == 7421);
  CHECK(c.vpa4.str() == "100.64.0.0/10");
  CHECK(c.vpa6.str() == "fd7c::/64");
  REQUIRE(c.find_switch("sw") != nullptr);
  CHECK(c.find_switch("sw")->nodes == std::vector<std::string>{"eth1", "eth2"});
  CHECK(c.find_switch("sw")->datapath == config::Datapath::kAuto);
  REQUIRE(c.find_node("d1") != nullptr);
  CHECK(c.find_node("d1")->role == config::Role::kDispatcher);
  CHECK(c.find_node(config::NodeId{102})->name == "s2");
  CHECK(c.find_node(config::NodeId{102})->address6 == address("fd00:3::3"));
  CHECK(c.find_node("nobody") == nullptr);
  CHECK(c.with_role(config::Role::kServer).size() == 2);
  REQUIRE(c.find_service(7) != nullptr);
  CHECK(c.find_service(7)->routes.size() == 2);
  CHECK(c.find_service(7)->routes[0].prefix == "/api");
  CHECK(c.find_service(7)->protocol == "http");
  REQUIRE(c.find_pool("api") != nullptr);
  CHECK(c.find_pool("api")->algorithm == config::Algorithm::kLeastConnections);
  CHECK(c.find_pool("api")->servers ==
        std::vector<config::PoolServer>{{"s1", 101, 81, "/run/api.sock"}});
  CHECK(c.find_pool("all")->servers[1] == config::PoolServer{"s2", 102, 8080, ""});
  CHECK(c.limits.flows == 1'048'576);
  CHECK(c.timeouts.closing == 60s);
  CHECK(c.paths("s1").pins("agent") == "/sys/fs/bpf/tcpmig/default/s1/agent");
}

TEST_CASE("config: how a server's agent makes connections, by default and for one") {
  CHECK(parsed(kGood).find_node("s1")->resume == config::Resume::kAuto);
  const std::string file =
      replaced(kGood, "role = \"server\" # s2", "role = \"server\"\nresume = \"kernel\"");
  const config::Config c = parsed(file + "[agent]\nresume = \"repair\"\n");
  CHECK(c.find_node("s1")->resume == config::Resume::kRepair);
  CHECK(c.find_node("s2")->resume == config::Resume::kKernel);
  CHECK(config::own_vpa(c, 101, true) == address("100.89.64.0"));
  CHECK(config::own_vpa(c, 101, false) == address("fd7c::65:0"));
}

TEST_CASE("config: durations are texts with a unit or integers of milliseconds") {
  const config::Config c = parsed(
      "[timeouts]\nhead = \"500ms\"\nclosing = 2500\nidle = \"2h\"\ntransfer = \"3s\"\n"
      "tombstone = \"1d\"\nscan = \"1m\"\n" +
      kGood);
  CHECK(c.timeouts.head == 500ms);
  CHECK(c.timeouts.closing == 2500ms);
  CHECK(c.timeouts.idle == 2h);
  CHECK(c.timeouts.transfer == 3s);
  CHECK(c.timeouts.tombstone == 24h);
  CHECK(c.timeouts.scan == 1min);
}

TEST_CASE("config: conditions of a route become values") {
  const config::Config c = parsed(replaced(
      kGood, "prefix = \"/api\"",
      "host = \"*.Example.org\"\npath = \"/a\"\nmethod = \"GET\"\nheader = \"X-Tier:  a b \""));
  const config::Route& route = c.services[0].routes[0];
  CHECK(route.host == "*.Example.org");
  CHECK(route.path == "/a");
  CHECK(route.method == "GET");
  REQUIRE(route.header.has_value());
  CHECK(route.header->first == "X-Tier");
  CHECK(route.header->second == "a b");
}

TEST_CASE("config: virtual private addresses") {
  config::Config c = parsed(kGood);
  CHECK(config::vpa4(c, 1, 1).str() == "100.64.64.1");
  CHECK(config::vpa4(c, 255, 16383).str() == "100.127.255.255");
  CHECK(config::vpa4_block(c, 101).str() == "100.89.64.0/18");
  CHECK(config::vpa6(c, 258, 7).str() == "fd7c::102:7");
  CHECK(config::vpa6_block(c, 258).str() == "fd7c::102:0/112");
  CHECK(config::vpa4_block(c, 101).contains(config::vpa4(c, 101, 16383)));
  CHECK_FALSE(config::vpa4_block(c, 101).contains(config::vpa4(c, 102, 1)));
  CHECK(config::vpa6_block(c, 101).contains(config::vpa6(c, 101, 16383)));
  c.vpa4 = sys::Prefix::parse("100.0.0.0/8").value();
  CHECK(config::vpa4(c, 1023, 16383).str() == "100.255.255.255");
  CHECK(config::vpa4({}, 1, 1).str() == "100.64.64.1");  // put together by hand: the default prefix
}

TEST_CASE("config: a file that cannot be read is a problem, not an exception") {
  const auto problem = [](const std::filesystem::path& file) {
    const auto result = config::load(file);
    REQUIRE_FALSE(result.has_value());
    return result.error().at(0).str();
  };
  CHECK(problem("/nonexistent/t.toml") ==
        "/nonexistent/t.toml: cannot be read (No such file or directory): give the right file with "
        "--config or TCPMIG_CONFIG");
  CHECK(problem("/").find("it is a directory") != std::string::npos);
}

TEST_CASE(
    "config: the secret file need not exist to be checked, and is found from the file's "
    "directory") {
  const auto file = std::filesystem::temp_directory_path() /
                    ("tcpmig-config-" + std::to_string(::getpid()) + ".toml");
  std::ofstream(file) << kGood;
  const auto result = config::load(file);
  std::filesystem::remove(file);
  REQUIRE(result.has_value());
  CHECK(result->secret_file == std::filesystem::temp_directory_path() / "secret");
}

TEST_CASE("config: the example is accepted, and says the defaults that there are") {
  const auto result = config::load(TCPMIG_SOURCE "/examples/tcpmig.toml");
  if (!result) FAIL(result.error().at(0).str());
  const config::Limits limits;
  CHECK(result->limits.flows == limits.flows);
  CHECK(result->limits.affinity == limits.affinity);
  CHECK(result->limits.tombstones == limits.tombstones);
  CHECK(result->limits.head_bytes == limits.head_bytes);
  CHECK(result->limits.waiting == limits.waiting);
  CHECK(result->limits.hold_packets == limits.hold_packets);
  CHECK(result->limits.hold_bytes == limits.hold_bytes);
  const config::Timeouts timeouts;
  CHECK(result->timeouts.head == timeouts.head);
  CHECK(result->timeouts.closing == timeouts.closing);
  CHECK(result->timeouts.idle == timeouts.idle);
  CHECK(result->timeouts.transfer == timeouts.transfer);
  CHECK(result->timeouts.retry == timeouts.retry);
  CHECK(result->timeouts.hold == timeouts.hold);
  CHECK(result->timeouts.tombstone == timeouts.tombstone);
  CHECK(result->timeouts.health == timeouts.health);
  CHECK(result->timeouts.scan == timeouts.scan);
}
