// SPDX-License-Identifier: MIT
// The last words of a connection whose socket has gone: the kernel answers at once, and only them.
#include "agent_steps.hpp"
#include "catch.hpp"

using namespace agent_test;
using namespace tcpmig;

namespace {

/// The server closes first, its client acknowledges that, and the kernel has no room for TIME_WAIT: the client's FIN will find nothing.
void close_without_time_wait(World& world, UniqueFd child, const Endpoint& client) {
  child.reset();
  world.send_segment(client, kNext, 70'001, kAck);  // (the server's FIN was the byte 70,000)
  REQUIRE(sys_test::holds_within(5s, [&] { return has_no_socket(world, client); }));
  world.sent();
}

/// A server with no room for TIME_WAIT, and an agent that would hold what finds no socket for longer than a test lasts.
struct Full {
  World world{"[timeouts]\nhold = \"60s\"\n"};
  UniqueFd listener = world.listener();
  Full() {
    no_room_for_time_wait(world);
    world.start();
  }
};

}  // namespace

TEST_CASE("agent: a FIN whose socket has gone without TIME_WAIT is answered at once", "[agent]") {
  if (cannot_run_here()) return;
  Full full;
  auto& [world, listener] = full;
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
  Full full;
  auto& [world, listener] = full;
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
  Full full;
  auto& [world, listener] = full;
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
