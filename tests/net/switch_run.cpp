// SPDX-License-Identifier: MIT
// run: what it keeps right, how it ends, what a kill leaves; and what is not ours.
#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <linux/bpf.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>

#include <fstream>
#include <nlohmann/json.hpp>

#include "catch.hpp"
#include "control/status_socket.hpp"
#include "shared/switch_maps.h"
#include "switch/switch.hpp"
#include "switch_world.hpp"
#include "sys/bpf.hpp"
#include "sys/check.hpp"
#include "sys/ledger.hpp"

using namespace tcpmig;
using switch_test::eventually;
using switch_test::has_flow;
using switch_test::insert_flow;
using switch_test::State;
using switch_test::state_of;
using switch_test::World;

namespace {

/// `switch run` in a child process of this test.
class Running {
 public:
  explicit Running(const World& world) : config_(world.config()) {
    pid_ = sys::check("fork", ::fork());
    if (pid_ == 0) {
      ::prctl(PR_SET_PDEATHSIG, SIGKILL);  // an aborted test leaves no process behind
      int code = 1;
      try {
        code = steering::run(config_, config_.switches.at(0));
      } catch (const std::exception& error) {
        std::fprintf(stderr, "run: %s\n", error.what());
      }
      ::_exit(code);
    }
    REQUIRE(eventually([&] { return status().value("ready", false); }));
  }
  ~Running() {
    if (pid_ > 0) end(SIGKILL);
  }
  Running(const Running&) = delete;
  Running& operator=(const Running&) = delete;

  [[nodiscard]] nlohmann::json status() const {
    return control::query_status(config_.paths("sw").socket("switch"))
        .value_or(nlohmann::json::object());
  }
  [[nodiscard]] pid_t pid() const { return pid_; }
  int end(int signal) {
    int result = 0;
    ::kill(pid_, signal);
    ::waitpid(pid_, &result, 0);
    pid_ = -1;
    return WIFEXITED(result) ? WEXITSTATUS(result) : 128 + WTERMSIG(result);
  }

 private:
  config::Config config_;
  pid_t pid_ = -1;
};

void down(const World& world) {
  const config::Config config = world.config();
  steering::down(config, config.switches.at(0));
}

std::string refusal(const std::function<void(const config::Config&, const config::Switch&)>& act,
                    const World& world) {
  const config::Config config = world.config();
  try {
    act(config, config.switches.at(0));
  } catch (const std::exception& error) {
    return error.what();
  }
  return "no refusal";
}

std::uint32_t node_ifindex(const World& world, std::uint32_t id) {
  return sys::map_lookup<abi::node_entry>(world.map("nodes").get(), id).value().ifindex;
}

bool has_own_address(const World& world, const char* text) {
  return sys::map_lookup<std::uint32_t>(world.map("own_addresses").get(),
                                        sys::Address::parse(text).value().raw())
      .has_value();
}

/// A foreign filter: two instructions that say "go on".
sys::UniqueFd foreign_program() {
  const bpf_insn go_on[] = {{BPF_ALU64 | BPF_MOV | BPF_K, BPF_REG_0, 0, 0, -1},
                            {BPF_JMP | BPF_EXIT, 0, 0, 0, 0}};
  return sys::UniqueFd(sys::check_errno(
      "load", bpf_prog_load(BPF_PROG_TYPE_SCHED_CLS, "foreign", "GPL", go_on, 2, nullptr)));
}

}  // namespace

TEST_CASE("switch: run answers, keeps its programs attached, and leaves them when it ends") {
  if (switch_test::cannot_run_here()) return;
  const std::string datapath = GENERATE("tc", "xdp");
  World world;
  world.file.datapath = datapath;
  Running running(world);
  const nlohmann::json said = running.status();
  CHECK(said.at("role") == "switch");
  CHECK(said.at("node") == "sw");
  CHECK(said.at("pid") == running.pid());
  CHECK(said.at("up") == true);

  const sys::UniqueFd link(bpf_obj_get((world.pins() / (datapath + "-eth1")).c_str()));
  REQUIRE(link);
  REQUIRE(bpf_link_detach(link.get()) == 0);
  CHECK(running.status().at("attached").size() == 2);
  CHECK(eventually([&] { return running.status().at("attached").size() == 3; }));

  CHECK(running.end(SIGTERM) == 0);
  CHECK_FALSE(std::filesystem::exists(world.config().paths("sw").socket("switch")));
  const config::Config config = world.config();
  CHECK(steering::status(config, config.switches.at(0)).at("attached").size() == 3);
}

TEST_CASE("switch: a second start says so and harms nothing") {
  if (switch_test::cannot_run_here()) return;
  World world;
  const Running running(world);
  const std::string words =
      "switch of node sw is already running (pid " + std::to_string(running.pid()) + ")";
  CHECK(refusal(steering::up, world).find(words) != std::string::npos);
  CHECK(refusal(steering::run, world).find(words) != std::string::npos);
  CHECK(refusal(steering::down, world).find(words) != std::string::npos);
  CHECK(running.status().at("up") == true);
}

TEST_CASE("switch: after kill -9 the programs stay, a new run adopts them, down removes them") {
  if (switch_test::cannot_run_here()) return;
  World world;
  const State before = state_of(world);
  Running first(world);
  const auto key = insert_flow(world, 40001);
  CHECK(first.end(SIGKILL) == 128 + SIGKILL);
  const config::Config config = world.config();
  CHECK(steering::status(config, config.switches.at(0)).at("up") == true);
  CHECK(has_flow(world, key));
  Running second(world);
  CHECK(has_flow(world, key));
  CHECK(second.status().at("flows").at("live") == 1);
  second.end(SIGKILL);
  down(world);
  CHECK(state_of(world) == before);
  CHECK_FALSE(std::filesystem::exists(world.pins()));
  CHECK_FALSE(std::filesystem::exists("/run/tcpmig/" + world.file.cluster));
}

TEST_CASE("switch: run follows interfaces, addresses and routes") {
  if (switch_test::cannot_run_here()) return;
  World world;
  const Running running(world);
  sys::Netlink netlink;
  REQUIRE(node_ifindex(world, 101) == static_cast<std::uint32_t>(world.ifindex("eth2")));

  netlink.add_address(world.ifindex("eth1"), sys::Prefix::parse("10.0.9.1/24").value());
  CHECK(eventually([&] { return has_own_address(world, "10.0.9.1"); }));
  netlink.remove_address(world.ifindex("eth1"), sys::Prefix::parse("10.0.9.1/24").value());
  CHECK(eventually([&] { return !has_own_address(world, "10.0.9.1"); }));

  switch_test::output_of("ip route del 100.89.64.0/18");
  CHECK(
      eventually([&] { return !switch_test::output_of("ip route show 100.89.64.0/18").empty(); }));

  // server s1 moves to the other network of nodes
  switch_test::output_of(
      "ip route add 10.0.3.2/32 via 10.0.2.9 dev eth1; ip -6 route add fd00:3::2/128 via fd00:2::9 "
      "dev eth1");
  CHECK(eventually([&] {
    return node_ifindex(world, 101) == static_cast<std::uint32_t>(world.ifindex("eth1"));
  }));
  CHECK(eventually([&] {
    return switch_test::output_of("ip route show 100.89.64.0/18").find("via 10.0.2.9 dev eth1") !=
           std::string::npos;
  }));

  // an interface goes and another of the same name comes
  netlink.remove_link("eth1");
  const sys::UniqueFd peer = sys::open_netns(world.peer_netns());
  netlink.create_veth("eth1", "peer9", peer.get());
  netlink.set_link("eth1", true);
  netlink.add_address(world.ifindex("eth1"), sys::Prefix::parse("10.0.2.1/24").value());
  CHECK(eventually([&] { return running.status().at("attached").size() == 3; }));
  CHECK(eventually(
      [&] { return node_ifindex(world, 1) == static_cast<std::uint32_t>(world.ifindex("eth1")); }));
}

TEST_CASE("switch: run sweeps flows that have been dead for long, and no others") {
  if (switch_test::cannot_run_here()) return;
  World world;
  world.file.extra = "[timeouts]\nclosing = \"100ms\"\n";
  const Running running(world);
  const auto live = insert_flow(world, 40001), dead = insert_flow(world, 40002, true);
  CHECK(eventually([&] { return !has_flow(world, dead); }));
  CHECK(has_flow(world, live));
  const config::Config config = world.config();
  const auto rows = steering::flows(config, config.switches.at(0));
  REQUIRE(rows.size() == 1);
  CHECK(rows[0].key.client_port == live.client_port);
}

TEST_CASE("switch: foreign filters, routes and sysctls are left alone") {
  if (switch_test::cannot_run_here()) return;
  World world;
  world.file.datapath = "tc";
  const sys::UniqueFd program = foreign_program();
  bpf_tc_hook hook{};
  hook.sz = sizeof hook;
  hook.ifindex = world.ifindex("eth0");
  hook.attach_point = BPF_TC_INGRESS;
  REQUIRE(bpf_tc_hook_create(&hook) == 0);
  bpf_tc_opts filter{};
  filter.sz = sizeof filter;
  filter.handle = 1;
  filter.priority = 7;
  filter.prog_fd = program.get();
  REQUIRE(bpf_tc_attach(&hook, &filter) == 0);
  switch_test::output_of("ip route add 192.0.2.0/24 via 10.0.2.9 dev eth1");
  // what a careful administrator has set: up must disturb none of it in effect, and down must bring
  // it back to the letter
  for (const auto& [name, value] : {std::pair("ipv4/conf/all/rp_filter", "1"),
                                    {"ipv4/conf/br0/rp_filter", "0"},
                                    {"ipv4/conf/eth0/rp_filter", "2"},
                                    {"ipv4/conf/all/accept_redirects", "0"},
                                    {"ipv4/conf/br0/forwarding", "1"},
                                    {"ipv6/conf/br0/accept_ra", "1"}})
    std::ofstream("/proc/sys/net/" + std::string(name)) << value;
  const State before = state_of(world);

  const config::Config config = world.config();
  for (int round = 0; round < 2; ++round) {  // the second one adopts
    steering::up(config, config.switches.at(0));
    CHECK(sys::read_sysctl("net.ipv4.conf.all.rp_filter") == "0");
    CHECK(sys::read_sysctl("net.ipv4.conf.eth0.rp_filter") == "0");
    CHECK(sys::read_sysctl("net.ipv4.conf.br0.rp_filter") == "1");
    CHECK(sys::read_sysctl("net.ipv6.conf.br0.accept_ra") == "2");
    CHECK(sys::read_sysctl("net.ipv4.conf.all.accept_redirects") == "0");
  }
  CHECK(switch_test::output_of("tc filter show dev eth0 ingress").find("foreign") !=
        std::string::npos);
  steering::down(config, config.switches.at(0));
  const State after = state_of(world);
  CHECK(after.sysctls == before.sysctls);
  CHECK(after.routes == before.routes);
  CHECK(after.programs == before.programs);
}
