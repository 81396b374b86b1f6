// SPDX-License-Identifier: MIT
// run: what it keeps right, how it ends, what a kill leaves; and what is not ours.
#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <linux/bpf.h>
#include <linux/if_link.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>

#include <array>
#include <fstream>
#include <nlohmann/json.hpp>

#include "catch.hpp"
#include "control/message.hpp"
#include "control/status_socket.hpp"
#include "shared/switch_maps.h"
#include "shared/wire.h"
#include "switch/switch.hpp"
#include "switch_world.hpp"
#include "sys/bpf.hpp"
#include "sys/check.hpp"
#include "sys/ledger.hpp"

using namespace tcpmig;
using switch_test::down;
using switch_test::eventually;
using switch_test::has_flow;
using switch_test::insert_flow;
using switch_test::refusal;
using switch_test::State;
using switch_test::state_of;
using switch_test::up;
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

std::uint32_t node_ifindex(const World& world, std::uint32_t id) {
  return sys::map_lookup<abi::node_entry>(world.map("nodes").get(), id).value().ifindex;
}

bool has_own_address(const World& world, const char* text) {
  return sys::map_lookup<std::uint32_t>(world.map("own_addresses").get(),
                                        sys::Address::parse(text).value().raw())
      .has_value();
}

/// A foreign program: two instructions that say "go on".
sys::UniqueFd foreign_program(bpf_prog_type type) {
  const int verdict = type == BPF_PROG_TYPE_XDP ? int{XDP_PASS} : -1;
  const bpf_insn go_on[] = {{BPF_ALU64 | BPF_MOV | BPF_K, BPF_REG_0, 0, 0, verdict},
                            {BPF_JMP | BPF_EXIT, 0, 0, 0, 0}};
  return sys::UniqueFd(
      sys::check_errno("load", bpf_prog_load(type, "foreign", "GPL", go_on, 2, nullptr)));
}

/// Takes our program off an interface, whoever may put it there again.
void detach_ours(const World& world, const std::string& pin) {
  const sys::UniqueFd link(bpf_obj_get((world.pins() / pin).c_str()));
  if (link) bpf_link_detach(link.get());
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
  CHECK(refusal(world, steering::up).find(words) != std::string::npos);
  CHECK(refusal(world, steering::run).find(words) != std::string::npos);
  CHECK(refusal(world, steering::down).find(words) != std::string::npos);
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

TEST_CASE("switch: an interface that refuses its program keeps run from nothing else") {
  if (switch_test::cannot_run_here()) return;
  World world;
  world.file.datapath = "xdp";
  Running running(world);
  // a foreign XDP program takes the place of ours on the first interface
  const sys::UniqueFd program = foreign_program(BPF_PROG_TYPE_XDP);
  const int ifindex = world.ifindex("eth0");
  REQUIRE(eventually([&] {
    detach_ours(world, "xdp-eth0");
    return bpf_xdp_attach(ifindex, program.get(), XDP_FLAGS_DRV_MODE, nullptr) == 0;
  }));
  detach_ours(world, "xdp-eth2");
  const auto dead = insert_flow(world, 40002, std::chrono::seconds(60));
  switch_test::output_of("ip route del 100.89.64.0/18");
  CHECK(eventually([&] { return !has_flow(world, dead); }));
  CHECK(eventually([&] { return running.status().at("attached").size() == 2; }));
  CHECK(
      eventually([&] { return !switch_test::output_of("ip route show 100.89.64.0/18").empty(); }));
  CHECK(running.status().at("up") == false);
  REQUIRE(bpf_xdp_detach(ifindex, XDP_FLAGS_DRV_MODE, nullptr) == 0);
  CHECK(eventually([&] { return running.status().value("up", false); }));
}

TEST_CASE("switch: run sweeps flows that have been dead for long, and no others") {
  if (switch_test::cannot_run_here()) return;
  World world;
  world.file.extra = "[timeouts]\ntransfer = \"4s\"\n";
  const config::Config config = world.config();
  up(world);
  // what is to be outlived is a late COMMIT (4 s, and as long again), not `closing` (60 s)
  const auto live = insert_flow(world, 40001),
             dead = insert_flow(world, 40002, std::chrono::seconds(30)),
             fresh = insert_flow(world, 40003, std::chrono::nanoseconds(0));
  const Running running(world);
  CHECK(eventually([&] { return !has_flow(world, dead); }));
  CHECK(has_flow(world, live));
  CHECK(has_flow(world, fresh));
  const auto rows = steering::flows(config, config.switches.at(0));
  REQUIRE(rows.size() == 1);
  CHECK(rows[0].key.client_port == live.client_port);
}

TEST_CASE("switch: run tells a former owner that a flow is not its own any more") {
  if (switch_test::cannot_run_here()) return;
  World world;
  const Running running(world);
  insert_flow(world, 40001);  // of server s1, generation 5
  const sys::EnterNetns dispatcher(world.peer_netns());
  switch_test::output_of(
      "ip addr add 10.0.2.2/24 dev peer1; ip route add 10.0.1.0/24 via 10.0.2.1; ip route add "
      "local 100.64.64.0/18 dev lo");
  const auto bound = [](int type, int protocol, const char* address, std::uint16_t port) {
    sys::UniqueFd fd(sys::check("socket", ::socket(AF_INET, type | SOCK_CLOEXEC, protocol)));
    const timeval deadline{10, 0};
    ::setsockopt(fd.get(), SOL_SOCKET, SO_RCVTIMEO, &deadline, sizeof deadline);
    const auto [to, length] =
        sys::Endpoint{sys::Address::parse(address).value(), port}.to_sockaddr();
    sys::check("bind", ::bind(fd.get(), reinterpret_cast<const sockaddr*>(&to), length));
    return fd;
  };
  const sys::UniqueFd control = bound(SOCK_DGRAM, 0, "10.0.2.2", 7420),
                      raw = bound(SOCK_RAW, IPPROTO_TCP, "100.64.64.7", 0);
  tcphdr rst{};
  rst.source = htons(80);
  rst.dest = htons(40001);
  rst.doff = 5;
  rst.rst = 1;
  const auto [client, length] =
      sys::Endpoint{sys::Address::parse("10.0.1.2").value(), 0}.to_sockaddr();
  for (int i = 0; i < 2; ++i)
    sys::check("send", ::sendto(raw.get(), &rst, sizeof rst, 0,
                                reinterpret_cast<const sockaddr*>(&client), length));

  std::array<std::byte, 2000> buffer{};
  const auto size = sys::check("recv", ::recv(control.get(), buffer.data(), buffer.size(), 0));
  const control::Opener opener(control::Secret::load(world.directory() / "secret"), {}, 1);
  const auto message = opener.open(std::span(buffer).first(static_cast<std::size_t>(size)));
  REQUIRE(message);
  CHECK(message->header.type == abi::WIRE_REVOKED);
  CHECK(message->header.sender == 0);
  CHECK(ntohs(message->header.service) == 7);
  CHECK(ntohl(message->header.generation) == 5);
  CHECK(ntohs(message->header.client_port) == 40001);
  CHECK(sys::Address(message->header.client).str() == "10.0.1.2");
  CHECK(eventually(
      [&] { return running.status().at("counters").at("drop_not_owner").get<int>() == 2; }));
  CHECK(running.status().at("counters").at("revoked") == 1);
}

TEST_CASE("switch: foreign filters, routes and sysctls are left alone") {
  if (switch_test::cannot_run_here()) return;
  World world;
  world.file.datapath = "tc";
  const sys::UniqueFd program = foreign_program(BPF_PROG_TYPE_SCHED_CLS);
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

  for (int round = 0; round < 2; ++round) {  // the second one adopts
    up(world);
    CHECK(sys::read_sysctl("net.ipv4.conf.all.rp_filter") == "0");
    CHECK(sys::read_sysctl("net.ipv4.conf.eth0.rp_filter") == "0");
    CHECK(sys::read_sysctl("net.ipv4.conf.br0.rp_filter") == "1");
    CHECK(sys::read_sysctl("net.ipv6.conf.br0.accept_ra") == "2");
    CHECK(sys::read_sysctl("net.ipv4.conf.all.accept_redirects") == "0");
  }
  CHECK(switch_test::output_of("tc filter show dev eth0 ingress").find("foreign") !=
        std::string::npos);
  down(world);
  const State after = state_of(world);
  CHECK(after.sysctls == before.sysctls);
  CHECK(after.routes == before.routes);
  CHECK(after.programs == before.programs);
}
