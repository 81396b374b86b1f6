// SPDX-License-Identifier: MIT
// The last words of a connection whose socket has gone: the kernel answers at once, and only them.
#include <sys/socket.h>

#include <fstream>

#include "agent_steps.hpp"
#include "catch.hpp"
#include "sys/ledger.hpp"
#include "sys/sock_diag.hpp"

using namespace agent_test;
using namespace tcpmig;

namespace {

/// The server closes first, its client acknowledges that, and the kernel has no room for TIME_WAIT: the client's FIN will find nothing.
void close_without_time_wait(World& world, UniqueFd child, const Endpoint& client) {
  child.reset();
  world.send_segment(client, kNext, 70'001, kAck);  // (the server's FIN was the byte 70,000)
  REQUIRE(sys_test::holds_within(5s, [&] {
    const auto inside = world.server();
    return !sys::SockDiag().find(World::vpa(client), client);
  }));
  world.sent();
}

void no_room_for_time_wait(const World& world) {
  const auto inside = world.server();
  std::ofstream("/proc/sys/net/ipv4/tcp_max_tw_buckets") << "0";
  REQUIRE(sys::read_sysctl("net.ipv4.tcp_max_tw_buckets") == "0");
}

}  // namespace

TEST_CASE("agent: a FIN whose socket has gone without TIME_WAIT is answered at once", "[agent]") {
  if (cannot_run_here()) return;
  World world("[timeouts]\nhold = \"60s\"\n");
  no_room_for_time_wait(world);
  const UniqueFd listener = world.listener();
  world.start();
  for (const Endpoint& client : {client4(9'320), client6(9'321)}) {
    CAPTURE(client.str());
    close_without_time_wait(world, open_one(world, listener, client), client);
    const std::uint64_t before = world.counter("guard_ended");
    world.send_segment(client, kNext, 70'001, kAck | kFin);
    CHECK(sys_test::holds_within(5s, [&] { return world.resets() == 1; }));
    CHECK(world.reaches("guard_ended", before + 1));
  }
  CHECK(world.counter("guard_held") == 0);
}

TEST_CASE("agent: what may be a successor's is held, where the last connection ended alike",
          "[agent]") {
  if (cannot_run_here()) return;
  World world("[timeouts]\nhold = \"60s\"\n");
  no_room_for_time_wait(world);
  const UniqueFd listener = world.listener();
  world.start();
  const auto [seq, ack, data] =
      GENERATE(table<std::uint32_t, std::uint32_t, std::string>({{kNext, 70'000, ""},
                                                                 {kNext + 1, 70'001, ""},
                                                                 {kNext - 1, 70'001, ""},
                                                                 {kNext, 70'001, "x"}}));
  const Endpoint client = client4(9'330);
  CAPTURE(seq, ack, data);
  close_without_time_wait(world, open_one(world, listener, client), client);
  world.send_segment(client, seq, ack, kAck, data);
  CHECK(world.reaches("guard_held", 1));
  CHECK(world.counter("guard_ended") == 0);
  CHECK(world.resets() == 0);
}

TEST_CASE("agent: the end of an earlier connection says nothing of the one that is on its way",
          "[agent]") {
  if (cannot_run_here()) return;
  World world("[timeouts]\nhold = \"60s\"\n");
  no_room_for_time_wait(world);
  const UniqueFd listener = world.listener();
  world.start();
  const Endpoint client = client4(9'340);
  close_without_time_wait(world, open_one(world, listener, client), client);
  const Snapshot snapshot = snapshot_of(client, pattern(4'096));  // the messages refer to it
  const auto parts = control::transfer_messages(transfer_of(client, 1'001), snapshot);
  send_without(world, parts, 0);  // announced, and not there
  REQUIRE(world.answer());
  world.send_segment(client, kNext, 70'001, kAck);
  CHECK(world.reaches("guard_held", 1));
  CHECK(world.counter("guard_ended") == 0);
  CHECK(world.resets() == 0);
}
