// SPDX-License-Identifier: MIT
// Transfers that the agent opens itself: several parts, an old socket with the same four-tuple, a descriptor.
#include <arpa/inet.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/un.h>

#include <tcpmig/resume.hpp>

#include "agent_steps.hpp"
#include "catch.hpp"
#include "sys/check.hpp"

using namespace agent_test;
using namespace tcpmig;

TEST_CASE("agent: transfers of several parts", "[agent]") {
  if (cannot_run_here()) return;
  World world;
  const UniqueFd listener = world.listener();
  world.start();
  std::uint16_t port = 6000;
  for (const std::size_t length : {1'345, 4'096, 30'000, 64'000, 90'000, 262'144})
    for (const bool ipv4 : {true, false}) {
      CAPTURE(length, ipv4);
      const Endpoint client = ipv4 ? client4(++port) : client6(++port);
      const Bytes received = pattern(length);
      world.transfer(transfer_of(client), snapshot_of(client, received));
      const UniqueFd connection = accepted(listener);
      REQUIRE(connection);
      CHECK(peer_of(connection) == client);
      CHECK(read_bytes(connection, length) == received);
      CHECK(is_resumed(world.answer()));
    }
  CHECK(world.counter("opened_tun") == 12);
  CHECK(world.resets() == 0);
}

TEST_CASE("agent: a client that has closed its direction", "[agent]") {
  if (cannot_run_here()) return;
  World world;
  const UniqueFd listener = world.listener();
  world.start();
  std::uint16_t port = 6050;
  for (const std::size_t length : {100, 900, 30'000, 100'000})
    for (const bool ipv4 : {true, false}) {
      CAPTURE(length, ipv4);
      const Endpoint client = ipv4 ? client4(++port) : client6(++port);
      const Bytes received = pattern(length);
      Snapshot snapshot = snapshot_of(client, received);
      snapshot.state = TcpState::kCloseWait;
      world.transfer(transfer_of(client), snapshot);
      const UniqueFd connection = accepted(listener);
      REQUIRE(connection);
      CHECK(read_bytes(connection, length) == received);
      REQUIRE(sys_test::readable_within(connection.get(), 5s));
      char byte = 0;
      CHECK(::recv(connection.get(), &byte, 1, MSG_DONTWAIT) == 0);
      CHECK(is_resumed(world.answer()));
      world.sent();
      REQUIRE(::send(connection.get(), "reply", 5, 0) == 5);
      CHECK(sys_test::holds_within(5s, [&] {
        for (const Sent& segment : world.sent())
          if (text_of(segment.data) == "reply" && segment.seq == 70'000) return true;
        return false;
      }));
    }
  CHECK(world.resets() == 0);
}

TEST_CASE("agent: a server that reads late gets every byte", "[agent]") {
  if (cannot_run_here()) return;
  World world("[timeouts]\ntransfer = \"400ms\"\n");
  const UniqueFd listener = world.listener();
  world.start();
  const Endpoint client = client4(6100);
  const Bytes received = pattern(200'000);
  world.transfer(transfer_of(client), snapshot_of(client, received));
  const UniqueFd connection = accepted(listener);
  REQUIRE(connection);
  // it is told before all is delivered, for nobody reads
  CHECK(is_resumed(world.answer()));
  CHECK(world.status()->at("delivering") == 1);
  // what comes meanwhile is held behind it
  world.send_segment(client, 205'000, 70'000, kAck | kPsh, "and more");
  Bytes expected = received;
  const Bytes more = bytes_of("and more");
  expected.insert(expected.end(), more.begin(), more.end());
  CHECK(read_bytes(connection, received.size()) == received);
  CHECK(sys_test::holds_within(5s, [&] { return world.status()->at("delivering") == 0; }));
  // it went beyond the child's window and was lost, or was held: the client sends it again
  world.send_segment(client, 205'000, 70'000, kAck | kPsh, "and more");
  CHECK(read_bytes(connection, more.size()) == more);
  CHECK(world.resets() == 0);
}

TEST_CASE("agent: parts out of order, twice, and missing", "[agent]") {
  if (cannot_run_here()) return;
  World world("[timeouts]\ntransfer = \"500ms\"\n");
  const UniqueFd listener = world.listener();
  world.start();
  const Endpoint client = client4(6200);
  const Bytes received = pattern(10'000);
  const Snapshot snapshot = snapshot_of(client, received);
  const auto parts = control::transfer_messages(transfer_of(client), snapshot);
  REQUIRE(parts.size() == 8);

  SECTION("backwards, each twice") {
    for (auto part = parts.rbegin(); part != parts.rend(); ++part) {
      world.send(*part);
      if (part + 1 != parts.rend()) world.send(*part);
    }
    const UniqueFd connection = accepted(listener);
    REQUIRE(connection);
    CHECK(read_bytes(connection, received.size()) == received);
  }
  SECTION("one missing is asked for") {
    send_without(world, parts, 3);
    const auto question = world.answer();
    REQUIRE(question);
    REQUIRE(question->header.type == abi::WIRE_MISSING);
    CHECK(question->payload == Bytes{std::byte{0}, std::byte{3}});
    CHECK_FALSE(accepted(listener, 0ms));
    world.send(parts[3]);
    const UniqueFd connection = accepted(listener);
    REQUIRE(connection);
    CHECK(read_bytes(connection, received.size()) == received);
    CHECK(is_resumed(world.answer()));
  }
  SECTION("never came") {
    send_without(world, parts, 0);
    CHECK(world.answer()->header.type == abi::WIRE_MISSING);
    CHECK(is_refused(world.answer(), abi::REASON_INCOMPLETE));
    CHECK(world.status()->at("assembling") == 0);
  }
}

TEST_CASE("agent: TIME_WAIT of the same four-tuple", "[agent]") {
  if (cannot_run_here()) return;
  World world;
  const UniqueFd listener = world.listener();
  world.start();
  for (const Endpoint& client : {client4(6300), client6(6300)}) {
    CAPTURE(client.str());
    world.transfer(transfer_of(client), snapshot_of(client, bytes_of(kRequest)));
    UniqueFd first = accepted(listener);
    REQUIRE(first);
    CHECK(is_resumed(world.answer()));
    read_bytes(first, kRequest.size());
    close_into_time_wait(world, std::move(first), client);

    world.transfer(transfer_of(client, 1001), snapshot_of(client, bytes_of("GET /second\r\n\r\n")));
    const UniqueFd second = accepted(listener);
    REQUIRE(second);
    CHECK(text_of(read_bytes(second, 15)) == "GET /second\r\n\r\n");
    const auto answer = world.answer();
    REQUIRE(is_resumed(answer));
    CHECK(ntohl(answer->header.generation) == 1001);
  }
  CHECK(world.counter("old_sockets_ended") == 2);
  CHECK(world.resets() == 0);
}

TEST_CASE("agent: a connection handed over by descriptor", "[agent]") {
  if (cannot_hand_over_here()) return;
  World world({}, true);
  world.start();
  const auto transfer = [&](const Endpoint& client, std::size_t length,
                            std::uint32_t generation = 1000) {
    world.transfer(transfer_of(client, generation, 81), snapshot_of(client, pattern(length)));
    return world.answer();
  };
  // nobody there yet
  CHECK(is_refused(transfer(client4(6400), 100), abi::REASON_NO_LISTENER));

  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  (world.directory() / "handoff").string().copy(address.sun_path, sizeof address.sun_path - 1);
  const UniqueFd server(::socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0));
  REQUIRE(::bind(server.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0);
  REQUIRE(::listen(server.get(), 4) == 0);

  // the agent connects anew for each connection, and waits until it is taken
  const auto take = [&] {
    const UniqueFd agent = sys_test::accepted_socket(server);
    auto given = take_connection(agent.get());
    REQUIRE(given);
    return std::move(*given);
  };
  const auto send = [&](const Endpoint& client, const Snapshot& snapshot) {
    world.transfer(transfer_of(client, 1000, 81), snapshot);
  };
  for (const std::size_t length : {100, 1'344, 20'000})
    for (const bool ipv4 : {true, false}) {
      CAPTURE(length, ipv4);
      const Endpoint client = ipv4 ? client4(static_cast<std::uint16_t>(7000 + length))
                                   : client6(static_cast<std::uint16_t>(7000 + length));
      send(client, snapshot_of(client, pattern(length)));
      const auto [connection, name] = take();
      CHECK(is_resumed(world.answer()));
      CHECK(name == client.str());
      CHECK(peer_of(connection) == client);
      CHECK(read_bytes(connection, length) == pattern(length));
      world.sent();
      REQUIRE(::send(connection.get(), "reply", 5, 0) == 5);
      CHECK(sys_test::holds_within(5s, [&] {
        for (const Sent& segment : world.sent())
          if (text_of(segment.data) == "reply" && segment.seq == 70'000) return true;
        return false;
      }));
      CHECK(is_resumed(transfer(client, length)));  // a repeat opens nothing
    }
  CHECK(world.counter("handed_over") == 6);

  // a client that has closed its direction
  Snapshot closed = snapshot_of(client4(6401), pattern(100));
  closed.state = TcpState::kCloseWait;
  send(client4(6401), closed);
  const auto [connection, name] = take();
  CHECK(is_resumed(world.answer()));
  CHECK(read_bytes(connection, 100) == pattern(100));
  REQUIRE(sys_test::readable_within(connection.get(), 5s));
  char byte = 0;
  CHECK(::recv(connection.get(), &byte, 1, MSG_DONTWAIT) == 0);
  CHECK(world.resets() == 0);
}

TEST_CASE("agent: bytes that were acknowledged outlast a slow delivery", "[agent]") {
  if (cannot_run_here()) return;
  World world("[timeouts]\nhold = \"50ms\"\ntransfer = \"400ms\"\n");
  const UniqueFd listener = world.listener();
  world.start();
  const Endpoint client = client4(6110);
  const Bytes received = pattern(200'000);
  world.transfer(transfer_of(client), snapshot_of(client, received));
  const UniqueFd connection = accepted(listener);
  REQUIRE(connection);
  CHECK(is_resumed(world.answer()));
  REQUIRE(world.status()->at("delivering") == 1);
  // what slipped past the lock: the client will never send it again
  abi::wire_header header = about(client, abi::WIRE_SEGMENT);
  header.flags = abi::WIRE_FLAG_CRAFTED;
  world.send({header, segment(205'000, 1, "slipped past")});
  world.send({header, segment(205'000, 1, "slipped past")});
  REQUIRE(world.reaches("late_segments", 2));
  // what is held expires meanwhile
  world.send_segment(client4(6111), 205'012, 70'000, kAck | kPsh, "lost");
  REQUIRE(world.reaches("hold_expired", 1));
  Bytes expected = received;
  for (const std::byte byte : bytes_of("slipped past")) expected.push_back(byte);
  CHECK(read_bytes(connection, expected.size()) == expected);
  CHECK(world.resets() == 0);
}
