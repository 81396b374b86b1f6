// SPDX-License-Identifier: MIT
// What happens around a transfer: early and late packets, ABORT, the end of a flow, restarts.
#include <arpa/inet.h>
#include <signal.h>
#include <sys/socket.h>

#include <algorithm>

#include "agent_steps.hpp"
#include "catch.hpp"

using namespace agent_test;
using namespace tcpmig;

TEST_CASE("agent: early packets wait for their connection", "[agent]") {
  if (cannot_run_here()) return;
  World world;
  const UniqueFd listener = world.listener();
  world.start();
  for (const Endpoint& client : {client4(8000), client6(8000)}) {
    CAPTURE(client.str());
    const std::uint64_t before = world.counter("held");
    world.send_segment(client, kNext, 70'000, kAck);
    std::string expected;
    std::uint32_t seq = kNext;
    for (const std::string data : {"one ", "two ", "three ", "four"}) {
      world.send_segment(client, seq, 70'000, kAck | kPsh, data);
      seq += static_cast<std::uint32_t>(data.size());
      expected += data;
    }
    REQUIRE(world.reaches("held", before + 5));
    CHECK(std::ranges::none_of(world.sent(),
                               [&](const Sent& segment) { return segment.to == client; }));
    const UniqueFd connection = open_one(world, listener, client);
    CHECK(text_of(read_bytes(connection, expected.size())) == expected);
  }
  CHECK(world.counter("replayed") == 10);
  CHECK(world.counter("hold_expired") == 0);
  CHECK(world.resets() == 0);
}

TEST_CASE("agent: what nobody opens is dropped in silence", "[agent]") {
  if (cannot_run_here()) return;
  World world("[limits]\nhold_packets = 4\n[timeouts]\nhold = \"100ms\"\n");
  const UniqueFd listener = world.listener();
  world.start();
  const Endpoint client = client4(8100);
  for (std::uint32_t i = 0; i < 6; ++i)
    world.send_segment(client, kNext + i, 70'000, kAck | kPsh, "x");
  world.send_segment(client, kNext, 0, kRst);
  world.send_segment(client, kNext, 0, kSyn);
  CHECK(world.reaches("hold_full", 3));
  CHECK(world.reaches("hold_expired", 4));
  CHECK(world.counter("guard_drop_syn") == 1);
  CHECK(world.status()->at("held_bytes") == 0);
  CHECK(world.sent().empty());
}

TEST_CASE("agent: an ended connection is the kernel's to answer", "[agent]") {
  if (cannot_run_here()) return;
  World world;
  const UniqueFd listener = world.listener();
  world.start();
  const Endpoint client = client4(8200);
  UniqueFd connection = open_one(world, listener, client);
  reset(std::move(connection));
  REQUIRE(sys_test::holds_within(5s, [&] { return world.resets() == 1; }));
  const auto gone = world.to_switch();
  REQUIRE(gone);
  CHECK(gone->type == abi::WIRE_GONE);
  CHECK(ntohl(gone->generation) == 1000);
  CHECK(ntohs(gone->service) == 5);
  CHECK(sys::Address(gone->client) == client.address);
  CHECK(ntohs(gone->client_port) == client.port);

  SECTION("late data: RST, as TCP does") {
    world.send_segment(client, kNext, 70'000, kAck | kPsh, "late");
    CHECK(sys_test::holds_within(5s, [&] { return world.resets() == 1; }));
  }
  SECTION("a new SYN: GONE again, and silence") {
    world.send_segment(client, 1, 0, kSyn);
    const auto again = world.to_switch();
    REQUIRE(again);
    CHECK(again->type == abi::WIRE_GONE);
    CHECK(world.sent().empty());
    CHECK(world.counter("stray_syn") == 1);
  }
}

TEST_CASE("agent: a SYN on a live connection reaches its socket", "[agent]") {
  if (cannot_run_here()) return;
  World world;
  const UniqueFd listener = world.listener();
  world.start();
  const Endpoint client = client4(8300);
  const UniqueFd connection = open_one(world, listener, client);
  world.sent();
  world.send_segment(client, 1, 0, kSyn);
  // RFC 5961: a challenge ACK, no RST
  std::vector<Sent> answers;
  REQUIRE(sys_test::holds_within(5s, [&] {
    for (Sent& sent : world.sent()) answers.push_back(std::move(sent));
    return !answers.empty();
  }));
  CHECK(answers[0].flags == kAck);
  CHECK(answers[0].ack == kNext);
  CHECK(world.counter("stray_syn") == 0);
}

TEST_CASE("agent: ABORT", "[agent]") {
  if (cannot_run_here()) return;
  World world;
  const UniqueFd listener = world.listener();
  world.start();
  const Endpoint client = client4(8400);
  const Snapshot snapshot = snapshot_of(client, bytes_of(kRequest));
  SECTION("before: never opened") {
    world.send({about(client, abi::WIRE_ABORT), {}});
    auto answer = world.answer();
    REQUIRE(answer);
    CHECK(answer->header.type == abi::WIRE_ABORTED);
    world.transfer(transfer_of(client), snapshot);
    CHECK(is_refused(world.answer(), abi::REASON_ABORTED));
    world.send({about(client, abi::WIRE_ABORT), {}});
    answer = world.answer();
    REQUIRE(answer);
    CHECK(answer->header.type == abi::WIRE_ABORTED);
    CHECK_FALSE(accepted(listener, 0ms));
    // the next generation is another matter
    const UniqueFd connection = open_one(world, listener, client, 1001);
    CHECK(connection);
  }
  SECTION("after: it is open") {
    const UniqueFd connection = open_one(world, listener, client);
    world.send({about(client, abi::WIRE_ABORT), {}});
    CHECK(is_resumed(world.answer()));
  }
}

TEST_CASE("agent: late segments of a former owner", "[agent]") {
  if (cannot_run_here()) return;
  World world;
  const UniqueFd listener = world.listener();
  world.start();
  for (const Endpoint& client : {client4(8500), client6(8500)}) {
    CAPTURE(client.str());
    const UniqueFd connection = open_one(world, listener, client);
    const Bytes captured = segment(kNext, 70'000, "captured");
    world.send({about(client, abi::WIRE_SEGMENT), captured});
    CHECK(text_of(read_bytes(connection, 8)) == "captured");
    // made from bytes: its acknowledgement number is not known to the former owner
    const Bytes crafted = segment(kNext + 8, 1, "crafted");
    abi::wire_header header = about(client, abi::WIRE_SEGMENT);
    header.flags = abi::WIRE_FLAG_CRAFTED;
    world.send({header, crafted});
    CHECK(text_of(read_bytes(connection, 7)) == "crafted");
    // of another generation
    const std::uint64_t dropped = world.counter("late_segments_dropped");
    world.send({about(client, abi::WIRE_SEGMENT, 999), captured});
    CHECK(world.reaches("late_segments_dropped", dropped + 1));
  }
  CHECK(world.counter("late_segments") == 4);
  CHECK(world.resets() == 0);
}

TEST_CASE("agent: REVOKED ends a connection that another node owns", "[agent]") {
  if (cannot_run_here()) return;
  World world;
  const UniqueFd listener = world.listener();
  world.start();
  const Endpoint client = client4(8450);
  const UniqueFd connection = open_one(world, listener, client);
  const auto generation = transfer_of(client).generation;
  // its own generation, an older one, a switch that knows nothing: it lives
  for (const std::uint32_t known : {generation, generation - 1, 0U})
    world.send_as_switch({about(client, abi::WIRE_REVOKED, known), {}});
  // the switch that knows nothing is told
  const auto renewal = world.to_switch();
  REQUIRE(renewal);
  CHECK(renewal->type == abi::WIRE_RENEW);
  CHECK(ntohl(renewal->generation) == generation);
  world.send_segment(client, kNext, 70'000, kAck | kPsh, "more");
  CHECK(text_of(read_bytes(connection, 4)) == "more");
  // a node cannot say so
  world.send({about(client, abi::WIRE_REVOKED, generation + 1), {}});
  world.send_segment(client, kNext + 4, 70'000, kAck | kPsh, "more");
  CHECK(text_of(read_bytes(connection, 4)) == "more");
  CHECK(world.counter("revoked") == 0);
  world.send_as_switch({about(client, abi::WIRE_REVOKED, generation + 1), {}});
  CHECK(world.reaches("revoked", 1));
  CHECK(read_bytes(connection, 1).empty());
}

TEST_CASE("agent: kill -9 and a new start", "[agent]") {
  if (cannot_run_here()) return;
  // a lease longer than this machine has been up
  World world("[timeouts]\nscan = \"100ms\"\nidle = \"8000h\"\n");
  const UniqueFd listener = world.listener();
  world.start();
  const Endpoint client = client4(8600), other = client4(8601);
  const UniqueFd connection = open_one(world, listener, client);
  UniqueFd ends = open_one(world, listener, other);
  CHECK(world.stop(SIGKILL) == 128 + SIGKILL);

  // nobody runs: the connection does, and a transfer is opened
  world.send_segment(client, kNext, 70'000, kAck | kPsh, "more");
  CHECK(text_of(read_bytes(connection, 4)) == "more");
  const Endpoint meanwhile = client4(8602);
  world.transfer(transfer_of(meanwhile), snapshot_of(meanwhile, bytes_of(kRequest)));
  const UniqueFd third = accepted(listener);
  REQUIRE(third);
  CHECK_FALSE(world.answer(0ms));
  reset(std::move(ends));

  world.start();
  CHECK(world.counter("opened") == 3);  // the maps are the same
  // its answer comes now: the event was waiting
  CHECK(is_resumed(world.answer()));
  // a repeat of what was opened before is not opened again
  world.transfer(transfer_of(client), snapshot_of(client, bytes_of(kRequest)));
  CHECK(is_resumed(world.answer()));
  world.transfer(transfer_of(other), snapshot_of(other, bytes_of(kRequest)));
  CHECK(is_resumed(world.answer()));
  CHECK_FALSE(accepted(listener, 0ms));
  CHECK(sys_test::holds_within(5s, [&] { return world.status()->at("live") == 2; }));
  // what lives is renewed, what has ended is told
  bool renewed = false, gone = false;
  for (int i = 0; i < 4 && !(renewed && gone); ++i) {
    const auto message = world.to_switch();
    REQUIRE(message);
    if (message->type == abi::WIRE_RENEW && ntohs(message->client_port) == client.port)
      renewed = true;
    if (message->type == abi::WIRE_GONE && ntohs(message->client_port) == other.port) gone = true;
  }
  CHECK(renewed);
  CHECK(gone);
  CHECK(world.reaches("renewed", 1));
  CHECK(world.reaches("gone", 1));
  // crafted segments need the number that only the tombstone knew
  const Bytes crafted = segment(kNext + 4, 1, "crafted");
  abi::wire_header header = about(client, abi::WIRE_SEGMENT);
  header.flags = abi::WIRE_FLAG_CRAFTED;
  world.send({header, crafted});
  CHECK(text_of(read_bytes(connection, 7)) == "crafted");
}

TEST_CASE("agent: a kill in the middle of a delivery", "[agent]") {
  if (cannot_run_here()) return;
  World world;
  const UniqueFd listener = world.listener();
  world.start();
  const Endpoint client = client4(8700);
  const Bytes received = pattern(200'000);
  const Snapshot snapshot = snapshot_of(client, received);
  world.transfer(transfer_of(client), snapshot);
  const UniqueFd connection = accepted(listener);
  REQUIRE(connection);
  REQUIRE(sys_test::holds_within(5s, [&] { return world.status()->at("delivering") == 1; }));
  CHECK(world.stop(SIGKILL) == 128 + SIGKILL);
  world.start();
  world.transfer(transfer_of(client), snapshot);  // the dispatcher has had no answer
  CHECK(read_bytes(connection, received.size()) == received);
  CHECK(is_resumed(world.answer()));
  CHECK_FALSE(accepted(listener, 0ms));
}

TEST_CASE("agent: load and tombstones", "[agent]") {
  if (cannot_run_here()) return;
  World world(
      "[timeouts]\ntombstone = \"500ms\"\ntransfer = \"100ms\"\nhold = \"100ms\"\nretry = "
      "\"10ms\"\n");
  const UniqueFd listener = world.listener();
  world.start();
  std::vector<UniqueFd> connections;
  for (std::uint16_t i = 0; i < 5; ++i)
    connections.push_back(open_one(world, listener, client4(static_cast<std::uint16_t>(8800 + i))));
  CHECK(sys_test::holds_within(5s, [&] {
    const auto load = world.load();
    return load && load->type == abi::WIRE_LOAD && ntohl(load->detail) == 5;
  }));
  for (std::size_t i = 2; i < 5; ++i) reset(std::move(connections[i]));
  CHECK(sys_test::holds_within(5s, [&] {
    const auto load = world.load();
    return load && load->type == abi::WIRE_LOAD && ntohl(load->detail) == 2;
  }));
  CHECK(world.reaches("swept", 3));
  CHECK(world.status()->at("tombstones") == 2);
}

TEST_CASE("agent: a COMMIT that was recorded opens nothing once its tombstone has gone",
          "[agent]") {
  if (cannot_run_here()) return;
  World world(
      "[timeouts]\ntombstone = \"500ms\"\ntransfer = \"100ms\"\nhold = \"100ms\"\nretry = "
      "\"10ms\"\n");
  const UniqueFd listener = world.listener();
  world.start();
  const Endpoint client = client4(8950);
  const Snapshot snapshot = snapshot_of(client, bytes_of(kRequest));
  const Bytes recorded =
      world.sealed(control::transfer_messages(transfer_of(client), snapshot).front());
  world.send_raw(recorded);
  UniqueFd connection = accepted(listener);
  REQUIRE(connection);
  CHECK(is_resumed(world.answer()));
  reset(std::move(connection));
  CHECK(world.reaches("swept", 1));
  world.send_raw(recorded);
  CHECK(world.reaches("drop_replay", 1));
  CHECK_FALSE(accepted(listener, 0ms));
}

TEST_CASE("agent: replays and strangers at the agent's socket", "[agent]") {
  if (cannot_run_here()) return;
  World world;
  world.start();
  const Endpoint client = client4(8900);
  const Bytes abort = world.sealed({about(client, abi::WIRE_ABORT), {}});
  world.send_raw(abort);
  CHECK(world.answer()->header.type == abi::WIRE_ABORTED);
  world.send_raw(abort);
  CHECK(world.reaches("replays", 1));
  Bytes forged = world.sealed({about(client, abi::WIRE_ABORT, 2000), {}});
  forged[27] ^= std::byte{1};
  world.send_raw(forged);
  CHECK(world.reaches("bad_tags", 1));
  CHECK_FALSE(world.answer(0ms));
}
