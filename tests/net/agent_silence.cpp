// SPDX-License-Identifier: MIT
// Nobody waits for ever: flows without a socket, and what the switch is told of them.
#include <arpa/inet.h>
#include <signal.h>
#include <sys/socket.h>

#include "agent_steps.hpp"
#include "catch.hpp"

using namespace agent_test;
using namespace tcpmig;

TEST_CASE("agent: GONE is said once more before a flow is forgotten", "[agent]") {
  if (cannot_run_here()) return;
  World world(
      "[timeouts]\ntombstone = \"500ms\"\ntransfer = \"100ms\"\nhold = \"100ms\"\nretry = "
      "\"10ms\"\n");
  const UniqueFd listener = world.listener();
  world.start();
  reset(open_one(world, listener, client4(9410)));
  for (int i = 0; i < 2; ++i) {
    const auto message = world.to_switch();
    REQUIRE(message);
    CHECK(message->type == abi::WIRE_GONE);
    CHECK(ntohl(message->generation) == 1000);
  }
  CHECK(world.reaches("swept", 1));
}

TEST_CASE("agent: a child that may have come and gone unseen leaves no entry open", "[agent]") {
  if (cannot_run_here()) return;
  World world(
      "[timeouts]\ntombstone = \"500ms\"\ntransfer = \"100ms\"\nhold = \"100ms\"\nretry = "
      "\"10ms\"\n");
  const UniqueFd listener = world.listener(80, true, 1);
  world.start();
  const std::size_t body = GENERATE(0U, 3'000U);  // the agent's, in several parts
  const auto request = bytes_of(kRequest + std::string(body, 'x'));
  for (std::uint16_t port = 9420; port <= 9422; ++port)  // a backlog of 1 takes two
    world.transfer(transfer_of(client4(port)), snapshot_of(client4(port), request));
  unsigned refused = 0;
  for (int i = 0; i < 3; ++i) refused += is_refused(world.answer(), abi::REASON_BACKLOG_FULL);
  REQUIRE(refused == 1);
  if (GENERATE(false, true)) {
    world.stop(SIGKILL);
    world.start();
  }
  auto message = world.to_switch();
  for (int i = 0; i < 20 && message && message->type == abi::WIRE_RENEW; ++i)
    message = world.to_switch();  // of the two that live
  REQUIRE(message);
  CHECK(message->type == abi::WIRE_GONE);
  CHECK(ntohl(message->generation) == 1000);
  CHECK(ntohs(message->client_port) == 9422);
}

TEST_CASE("agent: a client that is never opened gets its RST in the end", "[agent]") {
  if (cannot_run_here()) return;
  World world(
      "[timeouts]\ntransfer = \"200ms\"\nhold = \"100ms\"\nretry = \"10ms\"\ntombstone = \"1h\"\n");
  const UniqueFd listener = world.listener();
  world.start();
  const bool refused = GENERATE(false, true);
  for (const Endpoint& client : {client4(9400), client6(9400)}) {
    CAPTURE(client.str(), refused);
    if (refused) {
      world.send({about(client, abi::WIRE_ABORT), {}});
      auto answer = world.answer();
      while (answer && answer->header.type == abi::WIRE_SEGMENT)
        answer =
            world
                .answer();  // of the client before: for timeouts.transfer its packets are given back
      REQUIRE(answer);
      CHECK(answer->header.type == abi::WIRE_ABORTED);
    }
    world.sent();
    const auto start = std::chrono::steady_clock::now();
    std::vector<Sent> answers;
    REQUIRE(sys_test::holds_within(5s, [&] {
      world.send_segment(client, kNext, 70'000, kAck | kPsh, "anybody?");
      for (Sent& sent : world.sent())  // more than one may still come to the client before
        if (sent.to == client) answers.push_back(std::move(sent));
      return !answers.empty();
    }));
    CHECK(std::chrono::steady_clock::now() - start >= 500ms);
    CHECK((answers[0].flags & kRst) != 0);
    CHECK(answers[0].seq == 70'000);
  }
  CHECK(world.counter("orphans_reset") >= 2);
  CHECK((world.counter("handed_back") > 0) == refused);
}
