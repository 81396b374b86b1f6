// SPDX-License-Identifier: MIT
// Counters of the agent and of its programs that no other test comes by.
#include <arpa/inet.h>
#include <linux/capability.h>
#include <signal.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <tcpmig/resume.hpp>
#include <thread>

#include "agent/openings.hpp"
#include "agent/tombstones.hpp"

#include "agent_steps.hpp"
#include "agent_world.hpp"
#include "catch.hpp"
#include "sys/bpf.hpp"
#include "sys/netlink.hpp"

using namespace agent_test;
using namespace tcpmig;

namespace {

void set_link(const World& world, const std::string& name, bool up) {
  const auto inside = world.server();
  sys::Netlink().set_link(name, up);
}

abi::tombstone tombstone_of(std::uint32_t generation, abi::tombstone_state state) {
  abi::tombstone tombstone{};
  tombstone.generation = generation;
  tombstone.state = static_cast<std::uint8_t>(state);
  tombstone.target_port = 80;
  return tombstone;
}

/// This thread without one of its capabilities, for as long as this lives.
class WithoutCapability {
 public:
  explicit WithoutCapability(unsigned capability) {
    REQUIRE(::syscall(SYS_capget, &header_, before_.data()) == 0);
    auto less = before_;
    less.at(capability / 32).effective &= ~(1U << capability % 32);
    REQUIRE(::syscall(SYS_capset, &header_, less.data()) == 0);
  }
  ~WithoutCapability() { ::syscall(SYS_capset, &header_, before_.data()); }
  WithoutCapability(const WithoutCapability&) = delete;
  WithoutCapability& operator=(const WithoutCapability&) = delete;

 private:
  __user_cap_header_struct header_{_LINUX_CAPABILITY_VERSION_3, 0};
  std::array<__user_cap_data_struct, _LINUX_CAPABILITY_U32S_3> before_{};
};

}  // namespace

TEST_CASE("agent: what its programs count of packets for a VPA", "[agent]") {
  if (cannot_run_here()) return;
  World world;
  const UniqueFd listener = world.listener();
  world.start();
  const Endpoint client = client4(9600);
  world.send_segment(client, kNext, 70'000, kAck);
  CHECK(world.reaches("guard_held", 1));
  UniqueFd connection = open_one(world, listener, client);
  world.send_segment(client, kNext, 70'000, kAck | kPsh, "x");
  CHECK(text_of(read_bytes(connection, 1)) == "x");
  CHECK(world.reaches("guard_passed", 1));
  reset(std::move(connection));
  REQUIRE(sys_test::holds_within(5s, [&] { return world.resets() > 0; }));
  // Is it one of the connection that has ended, or of the next one? That is known when none has come.
  world.send_segment(client, kNext + 1, 70'000, kAck);
  CHECK(world.reaches("guard_held", 2));
  CHECK(world.resets() == 0);
  CHECK(world.reaches("ended_answered", 1));
  CHECK(sys_test::holds_within(5s, [&] { return world.resets() == 1; }));
  world.stop(SIGKILL);  // nobody who could hold it
  world.send_segment(client, kNext + 1, 70'000, kAck);
  CHECK(sys_test::holds_within(5s, [&] { return world.resets() == 1; }));
  world.start();
  CHECK(world.reaches("guard_to_kernel", 1));
}

TEST_CASE("agent: the RST of a client whose transfer was refused is nobody's", "[agent]") {
  if (cannot_run_here()) return;
  World world;
  world.start();
  const Endpoint client = client4(9605);
  world.transfer(transfer_of(client), snapshot_of(client, bytes_of(kRequest)));
  REQUIRE(is_refused(world.answer(), abi::REASON_NO_LISTENER));
  world.send_segment(client, kNext, 70'000, kRst);
  CHECK(world.reaches("guard_drop", 1));
}

TEST_CASE("agent: what is left to it, asked for, and answered again is counted", "[agent]") {
  if (cannot_run_here()) return;
  World world;
  const UniqueFd listener = world.listener();
  world.start();
  const Endpoint client = client4(9610);
  const Bytes received = pattern(5'000);
  const Snapshot snapshot = snapshot_of(client, received);
  const auto parts = control::transfer_messages(transfer_of(client), snapshot);
  send_without(world, parts, 0);
  CHECK(world.reaches("to_agent", 1));
  CHECK(world.reaches("parts_asked", 1));
  CHECK(world.answer()->header.type == abi::WIRE_MISSING);
  world.send(parts[0]);
  const UniqueFd connection = accepted(listener);
  REQUIRE(connection);
  CHECK(read_bytes(connection, received.size()) == received);
  CHECK(is_resumed(world.answer()));
  CHECK(world.counter("through_tun") == 1);
  world.send(parts.back());
  CHECK(is_resumed(world.answer()));
  CHECK(world.counter("answered_again") == 1);
}

TEST_CASE("agent: a tombstone table that is full refuses, and forgets nothing", "[agent]") {
  if (cannot_run_here()) return;
  World world("[limits]\ntombstones = 2\n");
  const UniqueFd listener = world.listener();
  world.start();
  std::vector<UniqueFd> connections;
  // The kernel rounds the room of a hash up a little: until it says no.
  bool full = false;
  for (std::uint16_t port = 9620; port < 9720 && !full; ++port) {
    const Endpoint client = client4(port);
    world.transfer(transfer_of(client), snapshot_of(client, bytes_of(kRequest)));
    const auto answer = world.answer();
    REQUIRE(answer);
    full = is_refused(answer, abi::REASON_TOMBSTONES_FULL);
    if (!full) connections.push_back(accepted(listener));
  }
  CHECK(full);
  CHECK(connections.size() >= 2);
  CHECK(world.counter("refused") >= 1);
  for (const UniqueFd& connection : connections)
    CHECK(text_of(read_bytes(connection, kRequest.size())) == kRequest);
}

TEST_CASE("agent: more ends at once than it tells the switch are counted", "[agent]") {
  if (cannot_run_here()) return;
  World world("[limits]\ntombstones = 64\n");  // a quarter of them may wait to be told
  const UniqueFd listener = world.listener();
  world.start();
  std::vector<UniqueFd> connections;
  for (std::uint16_t port = 9720; port < 9740; ++port)
    connections.push_back(open_one(world, listener, client4(port)));
  const auto pid = world.status()->at("pid").get<pid_t>();
  REQUIRE(::kill(pid, SIGSTOP) == 0);
  for (UniqueFd& connection : connections) reset(std::move(connection));
  std::this_thread::sleep_for(1s);  // all are to be looked at by then, and so at once
  REQUIRE(::kill(pid, SIGCONT) == 0);
  CHECK(world.reaches("gone", 17));
  CHECK(world.counter("gone_dropped") == 3);
}

TEST_CASE(
    "agent: a server that does not read a long request loses the connection, and its client hears "
    "of it",
    "[agent]") {
  if (cannot_run_here()) return;
  World world("[timeouts]\ndelivery = \"300ms\"\n");
  const UniqueFd listener = world.listener();
  world.start();
  for (const Endpoint& client : {client4(9750), client6(9750)}) {
    CAPTURE(client.str());
    world.sent();
    world.transfer(transfer_of(client), snapshot_of(client, pattern(200'000)));
    const UniqueFd connection = accepted(listener);
    REQUIRE(connection);
    check_reset_repeatedly(world, client, 70'000);
  }
  CHECK(world.counter("stalled") == 2);
}

TEST_CASE("agent: an old socket that the kernel does not end refuses its successor", "[agent]") {
  if (cannot_run_here()) return;
  World world;
  world.start();  // for the routes
  const Endpoint client = client4(9770);
  const auto inside = world.server();
  const UniqueFd old = repair_resume(snapshot_of(client, {}), World::vpa(client));
  agent::Arrival arrival{};
  arrival.commit = about(client, abi::WIRE_COMMIT);
  arrival.commit.target_port = htons(80);
  arrival.flow = agent::flow_of(world.config, world.self().id, arrival.commit);
  const auto map = sys::PinDirectory(world.config.paths("s1").pins("agent")).open("tombstones");
  REQUIRE(map);
  const agent::Tombstones tombstones(map->get(), -1, 64);
  sys::SockDiag diag;
  agent::Counters counters;
  {
    const WithoutCapability none(CAP_NET_ADMIN);
    const auto refusal = agent::end_old_socket(diag, tombstones, arrival, counters);
    REQUIRE(refusal);
    CHECK(refusal->reason == abi::REASON_TUPLE_BUSY);
    CHECK(refusal->detail == EPERM);
  }
  // the program has opened it, or a newer one, in the meantime: it is not the old one any more
  for (const auto& [generation, state] :
       {std::pair{1000U, abi::TOMB_OPENING}, std::pair{1000U, abi::TOMB_CONFIRMED},
        std::pair{1001U, abi::TOMB_ANNOUNCED}}) {
    sys::map_update(map->get(), arrival.flow, tombstone_of(generation, state));
    CHECK_FALSE(agent::end_old_socket(diag, tombstones, arrival, counters));
    CHECK(counters.old_sockets_ended == 0);
  }
  sys::map_update(map->get(), arrival.flow, tombstone_of(1000, abi::TOMB_ANNOUNCED));
  CHECK_FALSE(agent::end_old_socket(diag, tombstones, arrival, counters));
  CHECK(counters.old_sockets_ended == 1);
}

TEST_CASE("agent: what it cannot send, or give to the kernel, is counted", "[agent]") {
  if (cannot_run_here()) return;
  World world;
  const UniqueFd listener = world.listener();
  world.start();
  const std::uint64_t failed = world.counter("send_failed");
  set_link(world, "eth0", false);  // LOAD goes each 100 ms
  CHECK(world.reaches("send_failed", failed + 1));
  set_link(world, "eth0", true);
  {
    const auto inside = world.server();
    sys::Netlink netlink;
    netlink.add_route({sys_test::prefix("0.0.0.0/0"), sys_test::address("10.77.0.1")});
  }
  const Endpoint client = client4(9730);
  REQUIRE(sys_test::holds_within(5s, [&] {  // the link may take a moment
    world.send_segment(client, kNext, 70'000, kAck);
    return world.counter("held") >= 1;
  }));
  set_link(world, "tcpmig0", false);
  const UniqueFd connection = open_one(world, listener, client);  // then what was held is given
  CHECK(world.reaches("tun_full", 1));
}

TEST_CASE("agent: events that find no room are counted, and what they told of is found",
          "[agent]") {
  if (cannot_run_here()) return;
  World world;
  const UniqueFd listener = world.listener();
  world.start();
  const auto pid = world.status()->at("pid").get<pid_t>();
  const Endpoint first = client4(9740);
  const UniqueFd connection = open_one(world, listener, first);
  REQUIRE(::kill(pid, SIGSTOP) == 0);
  const Snapshot snapshot = snapshot_of(first, bytes_of(kRequest));
  const auto again = control::transfer_messages(transfer_of(first), snapshot);
  for (int i = 0; i < 2'000; ++i)
    world.send(again[0]);  // each an event; the ring has room for 1200
  const Endpoint last = client4(9741);
  const Snapshot unseen = snapshot_of(last, bytes_of(kRequest));
  const auto lost = control::transfer_messages(transfer_of(last), unseen);
  world.send(lost[0]);
  const UniqueFd found = accepted(listener);  // opened all the same: no process is needed for that
  REQUIRE(::kill(pid, SIGCONT) == 0);
  REQUIRE(found);
  CHECK(world.reaches("event_lost", 1));
  while (world.answer(500ms)) {  // all the others, or there is no room for the one that counts
  }
  world.send(lost[0]);  // the dispatcher repeats what was not answered
  CHECK(sys_test::holds_within(10s, [&] {
    const auto answer = world.answer(1s);
    return is_resumed(answer) && ntohs(answer->header.client_port) == last.port;
  }));
}
