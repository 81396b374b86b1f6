// SPDX-License-Identifier: MIT
// Connections that programs give away while their agent is stopped: it is there, and does nothing.
#include <signal.h>
#include <sys/socket.h>

#include <thread>

#include "catch.hpp"
#include "leaving.hpp"

using namespace agent_test;
using namespace tcpmig;

namespace {

/// `leaving` is given up after a second without a sign of life.
void leave_with_little_patience(Leaving& leaving) {
  leaving.outcome = std::async(std::launch::async, [&] {
    return migrate(std::move(leaving.connection), "s2", {},
                   {.agent = leaving.agent(), .patience = 1s});
  });
}

}  // namespace

TEST_CASE("agent: a program whose agent stands still keeps its connection, and the agent sees that",
          "[agent]") {
  if (cannot_run_here()) return;
  Leaving leaving(client4(6640));
  World& world = leaving.world;
  const pid_t agent = pid_of(world);
  agent_test::stop(agent);
  leave_with_little_patience(leaving);
  auto outcome = leaving.outcome.get();
  ::kill(agent, SIGCONT);
  REQUIRE_FALSE(outcome);
  CHECK(outcome.error().error == ETIMEDOUT);
  CHECK(outcome.error().reason == "the agent does not answer");
  REQUIRE(outcome.error().fd);
  REQUIRE(is_awake(world));
  for (int i = 0; i < 10; ++i)
    if (const auto said = world.to_switch(60ms)) CHECK(said->type != abi::WIRE_COMMIT);
  world.sent();
  REQUIRE(::send(outcome.error().fd.get(), "here", 4, MSG_NOSIGNAL) == 4);
  CHECK(sys_test::holds_within(5s, [&] {
    for (const Sent& segment : world.sent())
      if (text_of(segment.data) == "here") return true;
    return false;
  }));
}

TEST_CASE(
    "agent: where it stands still in the middle, its program is not held up, and its client hears "
    "an end",
    "[agent]") {
  if (cannot_run_here()) return;
  Leaving leaving(client4(6641));
  World& world = leaving.world;
  const pid_t agent = pid_of(world);
  leave_with_little_patience(leaving);
  const abi::wire_header commit = leaving.said(abi::WIRE_COMMIT);
  agent_test::stop(agent);
  const auto outcome = leaving.outcome.get();
  ::kill(agent, SIGCONT);
  REQUIRE_FALSE(outcome);
  CHECK(outcome.error().error == ENOTRECOVERABLE);
  CHECK_FALSE(outcome.error().fd);
  world.sent();
  leaving.answer(commit, abi::WIRE_REFUSED, abi::REASON_NO_HANDOFF, false);
  leaving.answer(leaving.said(abi::WIRE_COMMIT, true), abi::WIRE_RESUMED, abi::REASON_NONE, true);
  CHECK(sys_test::holds_within(5s, [&] {
    for (const Sent& segment : world.sent())
      if (segment.to == leaving.client && (segment.flags & (kFin | kRst)) != 0) return true;
    return false;
  }));
}

TEST_CASE("agent: one that is at work is waited for, however long that takes", "[agent]") {
  if (cannot_run_here()) return;
  Leaving leaving(client4(6642), "5s");
  leave_with_little_patience(leaving);
  const abi::wire_header commit = leaving.said(abi::WIRE_COMMIT);
  CHECK(leaving.outcome.wait_for(2500ms) == std::future_status::timeout);
  leaving.answer(commit, abi::WIRE_RESUMED, abi::REASON_NONE, false);
  CHECK(leaving.outcome.get());
}
