// SPDX-License-Identifier: MIT
// A client's port used again: what is left of the earlier connection must not answer for the new one.
#include <arpa/inet.h>
#include <poll.h>
#include <signal.h>
#include <sys/socket.h>

#include "agent_steps.hpp"
#include "catch.hpp"

using namespace agent_test;
using namespace tcpmig;

TEST_CASE("agent: a port used again, early packets of a transfer of several parts", "[agent]") {
  if (cannot_run_here()) return;
  World world("[timeouts]\nhold = \"10s\"\n");
  const UniqueFd listener = world.listener();
  world.start();
  const bool time_wait = GENERATE(false, true);
  for (const Endpoint& client : {client4(9000), client6(9000)}) {
    CAPTURE(client.str(), time_wait);
    UniqueFd first = open_one(world, listener, client);
    if (time_wait) {
      close_into_time_wait(world, std::move(first), client);
    } else {
      reset(std::move(first));
      REQUIRE(sys_test::holds_within(5s, [&] { return world.resets() == 1; }));
    }

    const Bytes received = pattern(4'096);
    const Snapshot snapshot = snapshot_of(client, received);
    const auto parts = control::transfer_messages(transfer_of(client, 1001), snapshot);
    send_without(world, parts, 0);
    const auto question = world.answer();
    REQUIRE(question);
    CHECK(question->header.type == abi::WIRE_MISSING);
    world.sent();
    const std::uint64_t held = world.counter("held");
    world.send_segment(client, snapshot.rcv_nxt.value, 70'000, kAck | kPsh, "early");
    CHECK(world.reaches("held", held + 1));
    CHECK(world.sent().empty());

    world.send(parts[0]);
    const UniqueFd second = accepted(listener);
    REQUIRE(second);
    CHECK(is_resumed(world.answer()));
    Bytes expected = received;
    for (const std::byte byte : bytes_of("early")) expected.push_back(byte);
    CHECK(read_bytes(second, expected.size()) == expected);
  }
  CHECK(world.resets() == 0);
}

TEST_CASE(
    "agent: a packet of a port used again that overtakes its COMMIT is not answered for the old "
    "connection",
    "[agent]") {
  if (cannot_run_here()) return;
  World world("[timeouts]\nhold = \"5s\"\n");
  const UniqueFd listener = world.listener();
  world.start();
  for (const Endpoint& client : {client4(9005), client6(9005)}) {
    CAPTURE(client.str());
    reset(open_one(world, listener, client));
    REQUIRE(sys_test::holds_within(5s, [&] { return world.resets() == 1; }));
    const std::uint64_t held = world.counter("held");
    world.send_segment(client, kNext, 70'000, kAck | kPsh, "early");
    CHECK(world.reaches("held", held + 1));
    world.transfer(transfer_of(client, 1001), snapshot_of(client, bytes_of(kRequest)));
    const UniqueFd second = accepted(listener);
    REQUIRE(second);
    CHECK(is_resumed(world.answer()));
    CHECK(text_of(read_bytes(second, kRequest.size() + 5)) == kRequest + "early");
    CHECK(world.resets() == 0);
  }
}

TEST_CASE("agent: an announced transfer can be aborted, and is taken up after kill -9", "[agent]") {
  if (cannot_run_here()) return;
  World world;
  const UniqueFd listener = world.listener();
  world.start();
  const Endpoint client = client4(9010);
  const Bytes received = pattern(4'096);
  const Snapshot snapshot = snapshot_of(client, received);
  const auto parts = control::transfer_messages(transfer_of(client), snapshot);
  send_without(world, parts, 0);
  REQUIRE(world.answer()->header.type == abi::WIRE_MISSING);
  SECTION("aborted") {
    world.send({about(client, abi::WIRE_ABORT), {}});
    const auto answer = world.answer();
    REQUIRE(answer);
    CHECK(answer->header.type == abi::WIRE_ABORTED);
    for (const control::Outgoing& part : parts) world.send(part);
    CHECK(is_refused(world.answer(), abi::REASON_ABORTED));
    CHECK_FALSE(accepted(listener, 0ms));
  }
  SECTION("taken up") {
    world.stop(SIGKILL);
    world.start();
    for (const control::Outgoing& part : parts) world.send(part);
    const UniqueFd connection = accepted(listener);
    REQUIRE(connection);
    CHECK(read_bytes(connection, received.size()) == received);
    CHECK(is_resumed(world.answer()));
  }
}

TEST_CASE("agent: a new transfer ends the delivery of the one before", "[agent]") {
  if (cannot_run_here()) return;
  World world;
  const UniqueFd listener = world.listener();
  world.start();
  const Endpoint client = client4(9030);
  world.transfer(transfer_of(client), snapshot_of(client, pattern(200'000)));
  const UniqueFd first = accepted(listener);
  REQUIRE(first);
  REQUIRE(sys_test::holds_within(5s, [&] { return world.status()->at("delivering") == 1; }));
  world.transfer(transfer_of(client, 1001), snapshot_of(client, bytes_of(kRequest)));
  const UniqueFd second = accepted(listener);
  REQUIRE(second);
  CHECK(text_of(read_bytes(second, kRequest.size())) == kRequest);
  auto answer = world.answer();
  if (answer && ntohl(answer->header.generation) == 1000) answer = world.answer();
  REQUIRE(is_resumed(answer));
  CHECK(ntohl(answer->header.generation) == 1001);
  CHECK(world.status()->at("delivering") == 0);
  CHECK_FALSE(sys_test::readable_within(second.get(), 0ms));
}

TEST_CASE("agent: an early RST is held in order like other packets", "[agent]") {
  if (cannot_run_here()) return;
  World world;
  const UniqueFd listener = world.listener();
  world.start();
  const Endpoint client = client4(9020);
  world.send_segment(client, kNext, 70'000, kAck | kPsh, "last words");
  world.send_segment(client, kNext + 10, 0, kRst);
  REQUIRE(world.reaches("held", 2));
  const UniqueFd connection = open_one(world, listener, client);
  CHECK(text_of(read_bytes(connection, 10)) == "last words");
  REQUIRE(sys_test::readable_within(connection.get(), 5s));
  char byte = 0;
  CHECK(::recv(connection.get(), &byte, 1, MSG_DONTWAIT) == -1);
  CHECK(errno == ECONNRESET);
}
