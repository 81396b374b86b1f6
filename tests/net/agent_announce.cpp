// SPDX-License-Identifier: MIT
// Another boot of the switch: the agent says what lives on its node.
#include "agent_steps.hpp"
#include "catch.hpp"

using namespace tcpmig;
using namespace agent_test;

TEST_CASE("agent: another boot of the switch is told of every live flow", "[agent]") {
  if (cannot_run_here()) return;
  World world;
  const UniqueFd listener = world.listener();
  world.start();
  const Endpoint client = client4(9600), other = client6(9601);
  const auto quiet = [&] { return !world.to_switch(1500ms); };
  const UniqueFd first = open_one(world, listener, client);
  world.answer_heartbeat(world.heartbeat(),
                         7);  // the first that it hears: nobody knows what is known there
  const auto renewed = world.to_switch();
  REQUIRE(renewed);
  CHECK(renewed->type == abi::WIRE_RENEW);
  REQUIRE(sys_test::holds_within(10s, quiet));
  world.answer_heartbeat(world.heartbeat(), 7);
  CHECK(quiet());

  const abi::wire_header heartbeat = world.heartbeat();
  world.answer_heartbeat(heartbeat, 8);
  for (int round = 0; round < 2; ++round) {  // a datagram may be lost: it says so again
    const auto renewal = world.to_switch();
    REQUIRE(renewal);
    CHECK(renewal->type == abi::WIRE_RENEW);
    CHECK(ntohl(renewal->generation) == 1000);
    CHECK(ntohs(renewal->service) == 5);
    CHECK(ntohs(renewal->target_port) == 80);
    CHECK(sys::Address(renewal->client) == client.address);
    CHECK(ntohs(renewal->client_port) == client.port);
  }
  // one that is confirmed only now: its COMMIT may have been applied in the table that is lost
  const UniqueFd second = open_one(world, listener, other);
  CHECK(sys_test::holds_within(5s, [&] {
    const auto renewal = world.to_switch();
    return renewal && sys::Address(renewal->client) == other.address;
  }));
  CHECK(world.reaches("announcements", 2));
  CHECK(world.status()->at("switch_heard") == true);

  // then it is quiet, and an answer that comes once more changes nothing
  CHECK(sys_test::holds_within(10s, quiet));
  world.answer_heartbeat(heartbeat, 7);
  CHECK(quiet());
}
