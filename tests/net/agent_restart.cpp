// SPDX-License-Identifier: MIT
// What an agent finds of a former run, and what somebody else has undone.
#include <arpa/inet.h>
#include <bpf/bpf.h>
#include <poll.h>
#include <signal.h>
#include <sys/socket.h>

#include "agent_steps.hpp"
#include "catch.hpp"

using namespace agent_test;
using namespace tcpmig;

TEST_CASE("agent: a delivery cut short by a restart ends its connection", "[agent]") {
  if (cannot_run_here()) return;
  enum class Dispatcher { kTold, kGone, kAborts };
  const auto dispatcher = GENERATE(Dispatcher::kTold, Dispatcher::kGone, Dispatcher::kAborts);
  World world("[timeouts]\ntransfer = \"1s\"\n");
  const UniqueFd listener = world.listener();
  world.start();
  const Endpoint client = client4(9300);
  world.transfer(transfer_of(client), snapshot_of(client, pattern(200'000)));
  const UniqueFd connection = accepted(listener);
  REQUIRE(connection);
  REQUIRE(sys_test::holds_within(5s, [&] { return world.status()->at("delivering") == 1; }));
  if (dispatcher == Dispatcher::kTold) CHECK(is_resumed(world.answer()));
  world.stop(SIGKILL);
  world.sent();
  world.start();
  if (dispatcher == Dispatcher::kAborts) {
    world.send({about(client, abi::WIRE_ABORT), {}});
    const auto answer = world.answer();
    REQUIRE(answer);
    CHECK(answer->header.type == abi::WIRE_ABORTED);
  }
  pollfd entry{connection.get(), 0, 0};
  REQUIRE(::poll(&entry, 1, 10'000) == 1);
  CHECK((entry.revents & POLLERR) != 0);
  check_reset_repeatedly(world, client, 70'000);
  CHECK(world.counter("cut_short") == 1);
}

TEST_CASE("agent: another limits.tombstones does not forget them", "[agent]") {
  if (cannot_run_here()) return;
  World world("[limits]\ntombstones = 4096\n");
  const UniqueFd listener = world.listener();
  world.start();
  const Endpoint client = client4(9310);
  reset(open_one(world, listener, client));
  for (const std::uint32_t entries : {8'192U, 2'048U}) {
    CAPTURE(entries);
    world.stop(SIGTERM);
    world.config.limits.tombstones = entries;
    world.start();
    world.transfer(transfer_of(client), snapshot_of(client, bytes_of(kRequest)));
    CHECK(is_resumed(world.answer()));
    CHECK_FALSE(accepted(listener, 0ms));
  }
}

TEST_CASE("agent: the program on the TUN is put back", "[agent]") {
  if (cannot_run_here()) return;
  World world;
  const UniqueFd listener = world.listener();
  world.start();
  const auto link =
      sys::PinDirectory(world.config.paths("s1").pins("agent")).open("link_resume_tun");
  if (!link) return;  // clsact: a filter, and no link to detach
  REQUIRE(bpf_link_detach(link->get()) == 0);
  std::uint16_t port = 9320;
  const auto opens = [&] {
    const Endpoint client = client4(++port);
    world.transfer(transfer_of(client), snapshot_of(client, pattern(4'000)));
    return static_cast<bool>(accepted(listener, 200ms));
  };
  CHECK(sys_test::holds_within(10s, opens));
}

TEST_CASE("agent: the key of a removed node opens nothing", "[agent]") {
  if (cannot_run_here()) return;
  World world;
  const UniqueFd listener = world.listener();
  world.start();
  world.stop(SIGTERM);
  std::erase_if(world.config.nodes, [](const config::Node& node) { return node.name == "d1"; });
  world.start();
  const Endpoint client = client4(9330);
  world.transfer(transfer_of(client), snapshot_of(client, bytes_of(kRequest)));
  CHECK(world.reaches("drop_bad_tag", 1));
  CHECK_FALSE(accepted(listener, 0ms));
  // What the program leaves to the agent's socket: its keys, too, are those of the configuration.
  std::uint64_t bad = 0;
  for (const std::uint8_t type : {abi::WIRE_ABORT, abi::WIRE_SEGMENT, abi::WIRE_DATA}) {
    world.send({about(client, type), {}});
    CHECK(world.reaches("bad_tags", ++bad));
  }
  CHECK(world.counter("aborted") == 0);
  CHECK(world.counter("late_segments_dropped") == 0);
  CHECK(world.status()->at("assembling") == 0);
  CHECK(world.status()->at("tombstones") == 0);
}
