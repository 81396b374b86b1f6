// SPDX-License-Identifier: MIT
// up and down: what is made, what is kept, what is given back.
#include <arpa/inet.h>

#include <fstream>
#include <nlohmann/json.hpp>
#include <set>

#include "catch.hpp"
#include "cli/cli.hpp"
#include "control/keys.hpp"
#include "shared/switch_maps.h"
#include "switch/switch.hpp"
#include "switch/tables.hpp"
#include "switch_world.hpp"
#include "sys/bpf.hpp"
#include "sys/ledger.hpp"

using namespace tcpmig;
using switch_test::down;
using switch_test::has_flow;
using switch_test::insert_flow;
using switch_test::State;
using switch_test::state_of;
using switch_test::up;
using switch_test::World;

namespace {

nlohmann::json status(const World& world) {
  const config::Config config = world.config();
  return steering::status(config, config.switches.at(0));
}

std::string refusal(const World& world) { return switch_test::refusal(world, steering::up); }

bool contains(const std::vector<std::string>& list, const std::string& words) {
  for (const std::string& line : list)
    if (line.find(words) != std::string::npos) return true;
  return false;
}

abi::ip_address raw(const char* text) { return sys::Address::parse(text).value().raw(); }

std::optional<std::uint32_t> vip(const World& world, const char* address, std::uint16_t port) {
  return sys::map_lookup<std::uint32_t>(world.map("vips").get(),
                                        abi::vip_key{raw(address), htons(port), {}});
}

abi::node_entry node(const World& world, std::uint32_t id) {
  return sys::map_lookup<abi::node_entry>(world.map("nodes").get(), id).value();
}

std::set<std::uint32_t> dispatchers_in_maglev(const World& world) {
  std::set<std::uint32_t> found;
  sys::map_for_each<std::uint32_t, std::uint32_t>(
      world.map("maglev").get(), [&](std::uint32_t, std::uint32_t id) { found.insert(id); });
  return found;
}

abi::switch_settings settings(const World& world) {
  return sys::map_lookup<abi::switch_settings>(world.map("settings").get(), std::uint32_t{0})
      .value();
}

}  // namespace

TEST_CASE("switch: up fills the maps") {
  if (switch_test::cannot_run_here()) return;
  World world;
  world.file.extra = "[timeouts]\nclosing = \"3s\"\n";
  up(world);
  CHECK(vip(world, "203.0.113.10", 80) == 7);
  CHECK(vip(world, "2001:db8:113::11", 8080) == 8);
  CHECK(vip(world, "203.0.113.10", 0) == 0);
  CHECK_FALSE(vip(world, "203.0.113.10", 81).has_value());
  const auto service =
      sys::map_lookup<abi::service_entry>(world.map("services").get(), std::uint32_t{8}).value();
  CHECK(service.used == 1);
  CHECK(service.port == htons(8080));
  CHECK(sys::Address(service.vip4).str() == "203.0.113.11");
  CHECK(node(world, 1).role == abi::NODE_DISPATCHER);
  CHECK(node(world, 101).role == abi::NODE_SERVER);
  CHECK(node(world, 101).ifindex == static_cast<std::uint32_t>(world.ifindex("eth2")));
  CHECK(sys::Address(node(world, 101).address6).str() == "fd00:3::2");
  const abi::key_ring keys = control::Secret::load(world.directory() / "secret").switch_keys(101);
  CHECK(node(world, 101).keys.key[0].k0 == keys.key[0].k0);
  CHECK(node(world, 101).keys.key_id[1] == keys.key_id[1]);
  CHECK(node(world, 55).role == abi::NODE_NONE);
  const auto own = [&](const char* address) {
    return sys::map_lookup<std::uint32_t>(world.map("own_addresses").get(), raw(address))
        .has_value();
  };
  CHECK(own("10.0.2.1"));
  CHECK(own("fd00:3::1"));
  CHECK_FALSE(own("10.0.1.1"));
  CHECK(sys::map_lookup<std::uint32_t>(world.map("node_addresses").get(), raw("10.0.3.3")) == 102);
  CHECK(dispatchers_in_maglev(world) == std::set<std::uint32_t>{1, 2});
  CHECK(settings(world).closing_ns == 3'000'000'000);
  CHECK(settings(world).boot != 0);
  CHECK(settings(world).control_port == htons(7420));
  CHECK(settings(world).vpa4_prefix_length == 10);
  CHECK(settings(world).vpa4_prefix[0] == 100);
  CHECK(settings(world).vpa6_prefix[1] == 0x7c);
}

TEST_CASE(
    "switch: up sets routes, sysctls and programs, status says so, down gives all of it back") {
  if (switch_test::cannot_run_here()) return;
  const std::string datapath = GENERATE("auto", "tc", "xdp");
  INFO(datapath);
  World world;
  world.file.datapath = datapath;
  const State before = state_of(world);
  up(world);
  const State during = state_of(world);
  for (const char* route :
       {"100.64.64.0/18 via 10.0.2.2 dev eth1", "100.89.64.0/18 via 10.0.3.2 dev eth2",
        "fd7c::65:0/112 via fd00:3::2 dev eth2", "203.0.113.10 via 10.0.2.2 dev eth1",
        "2001:db8:113::11 via fd00:2::2 dev eth1"})
    CHECK(contains(during.routes, route));
  CHECK(sys::read_sysctl("net.ipv4.ip_forward") == "1");
  CHECK(sys::read_sysctl("net.ipv6.conf.all.forwarding") == "1");
  for (const std::string interface : {"all", "eth0", "eth1", "eth2"})
    CHECK(sys::read_sysctl("net.ipv4.conf." + interface + ".rp_filter") == "0");
  const std::string kind = datapath == "xdp" ? "xdp" : "tc";  // auto: these are veths
  CHECK(contains(world.pin_names(), kind + "-eth0"));
  CHECK(contains(world.pin_names(), kind + "-eth2"));
  const nlohmann::json said = status(world);
  CHECK(said.at("datapath") == kind);
  CHECK(said.at("up") == true);
  CHECK(said.at("ready") == false);
  CHECK(said.at("pid").is_null());
  CHECK(said.at("attached").size() == 3);
  CHECK(said.at("attached")[0].at("side") == "clients");
  CHECK(said.at("nodes").size() == 4);
  CHECK(said.at("nodes")[2].at("interface") == "eth2");
  CHECK(said.at("services")[1].at("vip6") == "2001:db8:113::11");
  CHECK(said.at("counters").at("drop_bad_tag") == 0);
  CHECK(said.at("capacity") == 1'048'576);

  down(world);
  const State after = state_of(world);
  CHECK(after.sysctls == before.sysctls);
  CHECK(after.routes == before.routes);
  CHECK(after.programs == before.programs);
  CHECK_FALSE(std::filesystem::exists(world.pins()));
  CHECK_FALSE(std::filesystem::exists("/run/tcpmig/" + world.file.cluster));
  CHECK(status(world).at("up") == false);
  down(world);  // nothing there: nothing to do
}

TEST_CASE("switch: a second up adopts what is there, live flows included") {
  if (switch_test::cannot_run_here()) return;
  World world;
  world.file.datapath = "tc";
  up(world);
  const auto key = insert_flow(world, 40001);
  const abi::switch_settings first = settings(world);
  up(world);
  CHECK(has_flow(world, key));
  CHECK(settings(world).boot == first.boot);
  CHECK(settings(world).hash.k0 == first.hash.k0);

  SECTION("also when the datapath changes") {
    for (const std::string kind : {"xdp", "tc"}) {
      world.file.datapath = kind;
      up(world);
      CHECK(has_flow(world, key));
      CHECK(settings(world).boot == first.boot);
      CHECK(status(world).at("datapath") == kind);
      CHECK(status(world).at("attached").size() == 3);
      CHECK(contains(world.pin_names(), kind + "-eth0"));
      CHECK_FALSE(contains(world.pin_names(), (kind == "tc" ? "xdp" : "tc") + std::string("-")));
    }
  }
  SECTION("also when the table gets another size") {
    world.file.extra = "[limits]\nflows = 5000\naffinity = 1000\n";
    up(world);
    CHECK(has_flow(world, key));
    CHECK(settings(world).boot == first.boot);
    CHECK(status(world).at("capacity") == 5000);
  }
  SECTION("a table that is too small for them is refused, and nothing is lost") {
    for (std::uint16_t port = 1; port < 40; ++port) insert_flow(world, port);
    world.file.extra = "[limits]\nflows = 8\n";
    CHECK(refusal(world).find("make it larger") != std::string::npos);
    CHECK(has_flow(world, key));
    CHECK(status(world).at("up") == true);
  }
  SECTION("new maps have a new boot id") {
    down(world);
    up(world);
    CHECK_FALSE(has_flow(world, key));
    CHECK(settings(world).boot != first.boot);
  }
}

TEST_CASE("switch: --datapath stands above the file") {
  if (switch_test::cannot_run_here()) return;
  World world;
  world.file.datapath = "tc";
  const std::string file = (world.directory() / "cluster.toml").string();
  std::ofstream(file) << world.file.text(world.directory() / "secret");
  const auto command = [&](std::vector<std::string> words) {
    words.insert(words.begin(), "tcpmig");
    words.insert(words.end(), {"--config", file, "--node", "sw", "--json"});
    std::vector<char*> argv;
    for (std::string& word : words) argv.push_back(word.data());
    return cli::run(static_cast<int>(argv.size()), argv.data());
  };
  CHECK(command({"switch", "up", "--datapath", "xdp"}) == 0);
  CHECK(status(world).at("datapath") == "xdp");
  CHECK(command({"switch", "up"}) == 0);
  CHECK(status(world).at("datapath") == "tc");
}

TEST_CASE("switch: what the configuration no longer names goes") {
  if (switch_test::cannot_run_here()) return;
  World world;
  up(world);
  CHECK(contains(state_of(world).routes, "203.0.113.11 via"));
  world.file.second_dispatcher = world.file.second_server = world.file.second_service = false;
  up(world);
  CHECK_FALSE(vip(world, "203.0.113.11", 8080).has_value());
  CHECK_FALSE(vip(world, "203.0.113.11", 0).has_value());
  CHECK(vip(world, "203.0.113.10", 80) == 7);
  CHECK(sys::map_lookup<abi::service_entry>(world.map("services").get(), std::uint32_t{8})->used ==
        0);
  CHECK(node(world, 102).role == abi::NODE_NONE);
  CHECK_FALSE(sys::map_lookup<std::uint32_t>(world.map("node_addresses").get(), raw("10.0.3.3"))
                  .has_value());
  CHECK(dispatchers_in_maglev(world) == std::set<std::uint32_t>{1});
  const State now = state_of(world);
  CHECK_FALSE(contains(now.routes, "203.0.113.11"));
  CHECK_FALSE(contains(now.routes, "100.89.128.0/18"));
  CHECK(contains(now.routes, "100.89.64.0/18"));

  world.file.nodes = "\"eth1\"";
  up(world);
  CHECK_FALSE(contains(world.pin_names(), "-eth2"));
  CHECK(status(world).at("attached").size() == 2);
  CHECK(node(world, 101).ifindex == 0);  // reached through an interface that is not declared
}

TEST_CASE("switch: while dispatchers change, Maglev names none that is not there") {
  if (switch_test::cannot_run_here()) return;
  World world;
  const auto steps = [&] {  // fill() asks for a map before each step
    const config::Config config = world.config();
    const auto secret = control::Secret::load(world.directory() / "secret");
    const auto eth1 = static_cast<std::uint32_t>(world.ifindex("eth1"));
    std::map<std::string, sys::UniqueFd> maps;
    int count = 0;
    steering::fill(
        [&](const std::string& name) {
          ++count;
          for (const std::uint32_t id : dispatchers_in_maglev(world))
            CHECK(node(world, id).role == abi::NODE_DISPATCHER);
          return maps.try_emplace(name, world.map(name)).first->second.get();
        },
        steering::wanted(config, secret, [&](const config::Node&) { return eth1; }, {}));
    return count;
  };
  up(world);
  world.file.second_dispatcher = false;
  CHECK(steps() >= 3);
  CHECK(dispatchers_in_maglev(world) == std::set<std::uint32_t>{1});
  world.file.second_dispatcher = true;
  CHECK(steps() >= 3);
  CHECK(dispatchers_in_maglev(world) == std::set<std::uint32_t>{1, 2});
}

TEST_CASE("switch: an interface with a dot in its name") {
  if (switch_test::cannot_run_here()) return;
  World world;
  sys::Netlink().rename_link("eth0", "wan.5");
  sys::Netlink().set_link("wan.5", true);
  world.file.clients = "\"wan.5\"";
  up(world);
  CHECK(status(world).at("attached").size() == 3);
  world.file.clients = "\"br0\"";
  up(world);
  CHECK(status(world).at("attached")[0].at("interface") == "br0");
  CHECK_FALSE(contains(world.pin_names(), "wan"));
}

TEST_CASE("switch: what is impossible is refused in one sentence, and leaves nothing") {
  if (switch_test::cannot_run_here()) return;
  World world;
  const State before = state_of(world);
  SECTION("XDP on an interface without native XDP") {
    world.file.datapath = "xdp";
    world.file.clients = "\"br0\"";
    CHECK(refusal(world).starts_with("interface br0: its driver has no native XDP"));
  }
  SECTION("XDP on a later interface without native XDP") {
    world.file.datapath = "xdp";
    world.file.nodes = "\"eth1\", \"eth2\", \"br0\"";
    CHECK(refusal(world).starts_with("interface br0: its driver has no native XDP"));
  }
  SECTION("interfaces that are not there") {
    world.file.clients = "\"eth7\", \"eth0\", \"eth8\"";
    CHECK(refusal(world) ==
          "no such interface: eth7, eth8 (named in [[switch]] \"sw\" of the configuration)");
  }
  SECTION("no secret") {
    std::filesystem::remove(world.directory() / "secret");
    CHECK(refusal(world).find("secret") != std::string::npos);
  }
  SECTION("a foreign route in the way") {
    switch_test::output_of("ip route add 203.0.113.10/32 via 10.0.1.9 dev eth0");
    CHECK(refusal(world).starts_with(
        "another route to 203.0.113.10/32 is there, which is not ours: remove it"));
    CHECK(contains(state_of(world).routes, "203.0.113.10 via 10.0.1.9 dev eth0"));
    switch_test::output_of("ip route del 203.0.113.10/32 via 10.0.1.9 dev eth0");
  }
  CHECK(state_of(world) == before);
  CHECK_FALSE(std::filesystem::exists(world.pins()));
}

TEST_CASE("switch: a refused change leaves the programs and the table that were there") {
  if (switch_test::cannot_run_here()) return;
  World world;
  world.file.datapath = "xdp";
  up(world);
  const auto key = insert_flow(world, 40001);
  const auto programs = state_of(world).programs;
  world.file.nodes = "\"eth1\", \"eth2\", \"br0\"";  // the last has no native XDP
  world.file.extra = "[limits]\nflows = 5000\n";
  CHECK(refusal(world).starts_with("interface br0: its driver has no native XDP"));
  CHECK(state_of(world).programs == programs);
  CHECK(status(world).at("capacity") == 1'048'576);
  CHECK(has_flow(world, key));
}

TEST_CASE("switch: auto takes tc where a driver has no native XDP") {
  if (switch_test::cannot_run_here()) return;
  World world;
  world.file.clients = "\"br0\"";
  world.file.nodes = "\"lo\"";
  up(world);
  CHECK(status(world).at("datapath") == "tc");
  CHECK_FALSE(contains(world.pin_names(), "xdp-"));
}
