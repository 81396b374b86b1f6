// SPDX-License-Identifier: MIT
// Repair resume for programs that ask with a ticket, step by step: each of the two ends ends at each step.
#include <arpa/inet.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/un.h>

#include <thread>

#include "agent_steps.hpp"
#include "catch.hpp"
#include "exec/exec.hpp"
#include "sys/check.hpp"

using namespace agent_test;
using namespace tcpmig;

namespace {

const std::string kRepair = "[agent]\nresume = \"repair\"\n";

/// A Unix connection to the agent, as a program's library makes it.
UniqueFd connected_to_agent(const World& world) {
  UniqueFd channel(::socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0));
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  world.config.paths("s1").handover_socket().string().copy(address.sun_path,
                                                           sizeof address.sun_path - 1);
  sys::check("connect",
             ::connect(channel.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address));
  return channel;
}

/// CLAIM is sent with `ticket`.
UniqueFd claim_with(const World& world, const UniqueFd& ticket) {
  UniqueFd channel = connected_to_agent(world);
  REQUIRE(handover_send(channel.get(), HANDOVER_CLAIM, ticket.get()) == 0);
  return channel;
}

UniqueFd offered(const UniqueFd& channel) {
  int fd = -1;
  REQUIRE(handover_receive(channel.get(), &fd) == HANDOVER_OFFER);
  return UniqueFd(fd);
}

/// Nothing has gone to a client.
bool is_silent(World& world) { return world.sent().empty(); }

}  // namespace

TEST_CASE("agent: who accepts a ticket gets the connection for it", "[agent]") {
  if (cannot_hand_over_here()) return;
  World world(kRepair);
  const UniqueFd listener = world.listener();
  world.start();
  const handover_place place = exec::place_of(world.config, world.self());
  std::uint16_t port = 9500;
  for (const std::size_t length : {100, 1'344, 200'000})
    for (const bool ipv4 : {true, false}) {
      CAPTURE(length, ipv4);
      const Endpoint client = ipv4 ? client4(++port) : client6(++port);
      world.transfer(transfer_of(client), snapshot_of(client, pattern(length)));
      const UniqueFd connection = accepted(listener);
      REQUIRE(connection);
      const int number = connection.get();
      const auto inside = world.server();
      REQUIRE(handover_claim(&place, number) == 0);
      CHECK(is_resumed(world.answer()));
      CHECK(peer_of(connection) == client);
      CHECK(read_bytes(connection, length) == pattern(length));
      world.sent();
      REQUIRE(::send(number, "reply", 5, 0) == 5);
      CHECK(sys_test::holds_within(5s, [&] {
        for (const Sent& segment : world.sent())
          if (text_of(segment.data) == "reply" && segment.seq == 70'000) return true;
        return false;
      }));
    }
  CHECK(world.counter("handed_over") == 6);
  CHECK(world.counter("tickets") == 6);
  CHECK(world.resets() == 0);
}

TEST_CASE("agent: nobody gets a connection but who has accepted its ticket", "[agent]") {
  if (cannot_hand_over_here()) return;
  World world(kRepair);
  const UniqueFd listener = world.listener();
  world.start();
  const handover_place place = exec::place_of(world.config, world.self());
  const auto inside = world.server();
  // a stranger with the ticket's address
  const UniqueFd stranger(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  const auto [own, length] = Endpoint{config::own_vpa(world.config, 2, true), 0}.to_sockaddr();
  REQUIRE(::bind(stranger.get(), reinterpret_cast<const sockaddr*>(&own), length) == 0);
  const auto [to, to_length] = World::vpa(client4(1)).to_sockaddr();
  REQUIRE(::connect(stranger.get(), reinterpret_cast<const sockaddr*>(&to), to_length) == 0);
  const UniqueFd ordinary = accepted(listener);
  REQUIRE(ordinary);
  CHECK(handover_claim(&place, ordinary.get()) == -ENOENT);
  CHECK(world.counter("strangers") == 1);
  REQUIRE(::send(stranger.get(), "hello", 5, 0) == 5);
  CHECK(text_of(read_bytes(ordinary, 5)) == "hello");
  // what is no connection at all
  const UniqueFd no_socket(::open("/dev/null", O_RDWR | O_CLOEXEC));
  CHECK(handover_receive(claim_with(world, no_socket).get(), nullptr) == HANDOVER_NOTHING);
  // a ticket's own two ends say the same of themselves, but only one of them was accepted: the wrong one
  CHECK(handover_receive(claim_with(world, stranger).get(), nullptr) == HANDOVER_STRANGER);
}

TEST_CASE("agent: one user has a share of the askers", "[agent]") {
  if (cannot_hand_over_here()) return;
  World world(kRepair);
  const UniqueFd listener = world.listener();
  world.start();
  // they say nothing; each is forgotten after a second, so more than a share come at once
  std::vector<UniqueFd> askers;
  REQUIRE(sys_test::holds_within(10s, [&] {
    for (int i = 0; i < 300; ++i) askers.push_back(connected_to_agent(world));
    return world.counter("askers_dropped") > 0;
  }));
  askers.clear();
  const Endpoint client = client4(9526);
  world.transfer(transfer_of(client), snapshot_of(client, bytes_of(kRequest)));
  const UniqueFd ticket = accepted(listener);
  REQUIRE(ticket);
  const handover_place place = exec::place_of(world.config, world.self());
  CHECK(sys_test::holds_within(5s, [&] { return handover_claim(&place, ticket.get()) == 0; }));
}

TEST_CASE("agent: a stranger's descriptor that takes long to close holds nobody up", "[agent]") {
  if (cannot_hand_over_here()) return;
  World world(kRepair);
  const UniqueFd listener = world.listener();
  world.start();
  UniqueFd reader;  // which does not read
  {
    const auto inside = world.server();
    const UniqueFd other(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t length = sizeof address;
    auto* raw = reinterpret_cast<sockaddr*>(&address);
    REQUIRE(::bind(other.get(), raw, length) == 0);
    REQUIRE(::listen(other.get(), 1) == 0);
    REQUIRE(::getsockname(other.get(), raw, &length) == 0);
    UniqueFd lingering(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
    REQUIRE(::connect(lingering.get(), raw, length) == 0);
    reader.reset(::accept4(other.get(), nullptr, nullptr, SOCK_CLOEXEC));
    const Bytes chunk = pattern(65'536);
    while (::send(lingering.get(), chunk.data(), chunk.size(), MSG_DONTWAIT) > 0) {
    }
    const linger seconds{1, 20};
    REQUIRE(::setsockopt(lingering.get(), SOL_SOCKET, SO_LINGER, &seconds, sizeof seconds) == 0);
    const UniqueFd channel = claim_with(world, lingering);
    lingering.reset();  // the agent has the last one
    CHECK(handover_receive(channel.get(), nullptr) == HANDOVER_STRANGER);
  }
  const Endpoint client = client4(9525);
  world.transfer(transfer_of(client), snapshot_of(client, bytes_of(kRequest)));
  CHECK(accepted(listener));
}

TEST_CASE("agent: a program that dies before it has taken its connection loses nothing",
          "[agent]") {
  if (cannot_hand_over_here()) return;
  World world(kRepair + "[timeouts]\ntransfer = \"3s\"\n");
  const UniqueFd listener = world.listener();
  world.start();
  const Endpoint client = client4(9520);
  world.transfer(transfer_of(client), snapshot_of(client, bytes_of(kRequest)));
  UniqueFd ticket = accepted(listener);
  REQUIRE(ticket);
  world.sent();
  SECTION("having accepted") {
    char first = 0;  // unread: it did not close because it is not under `tcpmig exec`
    REQUIRE(sys_test::holds_within(
        5s, [&] { return ::recv(ticket.get(), &first, 1, MSG_PEEK | MSG_DONTWAIT) == 1; }));
    ticket.reset();
    CHECK(is_refused(world.answer(), abi::REASON_NOT_TAKEN));
  }
  SECTION("having been offered it") {
    UniqueFd channel = claim_with(world, ticket);
    UniqueFd connection = offered(channel);
    const Snapshot snapshot = snapshot_of(client, bytes_of(kRequest));
    world.send_segment(client, snapshot.rcv_nxt.value, snapshot.snd_nxt.value, 0x18, "more");
    connection.reset();
    channel.reset();
    CHECK(is_refused(world.answer(), abi::REASON_NOT_TAKEN));
    CHECK(world.counter("not_taken") == 1);
    const auto back = world.answer();  // what it has kept for it goes back
    REQUIRE(back);
    CHECK(back->header.type == abi::WIRE_SEGMENT);
    CHECK(text_of(back->payload).ends_with("more"));
  }
  SECTION("or is stopped, and says it too late") {
    const UniqueFd channel = claim_with(world, ticket);
    const UniqueFd connection = offered(channel);
    CHECK(is_refused(world.answer(), abi::REASON_NOT_TAKEN));
    std::this_thread::sleep_for(1s);  // several censuses find its socket
    CHECK(handover_take(channel.get(), connection.get()) < 0);
    CHECK(world.counter("late_children_ended") == 0);
  }
  CHECK(is_silent(world));
  // the next generation is another matter
  world.transfer(transfer_of(client, 1001), snapshot_of(client, bytes_of(kRequest)));
  const UniqueFd again = accepted(listener);
  REQUIRE(again);
  const handover_place place = exec::place_of(world.config, world.self());
  CHECK(handover_claim(&place, again.get()) == 0);
  CHECK(is_resumed(world.answer()));
}

TEST_CASE("agent: killed before a connection is taken, it leaves nothing that speaks", "[agent]") {
  if (cannot_hand_over_here()) return;
  World world(kRepair + "[timeouts]\ntransfer = \"3s\"\n");
  const UniqueFd listener = world.listener();
  world.start();
  const Endpoint client = client4(9530);
  const Snapshot snapshot = snapshot_of(client, bytes_of(kRequest));
  world.transfer(transfer_of(client), snapshot);
  const UniqueFd ticket = accepted(listener);
  REQUIRE(ticket);
  const UniqueFd channel = claim_with(world, ticket);
  UniqueFd connection = offered(channel);
  world.sent();
  REQUIRE(world.stop(SIGKILL) == 128 + SIGKILL);
  CHECK(handover_take(channel.get(), connection.get()) < 0);
  connection.reset();
  CHECK(is_silent(world));
  world.start();
  world.transfer(transfer_of(client), snapshot);
  const auto answer =
      world.answer();  // for what reason depends on who is quicker, the question or the census
  REQUIRE(answer);
  CHECK(answer->header.type == abi::WIRE_REFUSED);
}

TEST_CASE("agent: ABORT ends a handover that nobody has taken", "[agent]") {
  if (cannot_hand_over_here()) return;
  World world(kRepair);
  const UniqueFd listener = world.listener();
  world.start();
  const Endpoint client = client4(9540);
  world.transfer(transfer_of(client), snapshot_of(client, bytes_of(kRequest)));
  const UniqueFd ticket = accepted(listener);
  REQUIRE(ticket);
  const bool is_offered = GENERATE(false, true);
  UniqueFd channel;
  UniqueFd connection;
  if (is_offered) {
    channel = claim_with(world, ticket);
    connection = offered(channel);
  }
  world.send({about(client, abi::WIRE_ABORT), {}});
  const auto answer = world.answer();
  REQUIRE(answer);
  CHECK(answer->header.type == abi::WIRE_ABORTED);
  const handover_place place = exec::place_of(world.config, world.self());
  if (is_offered)
    CHECK(handover_take(channel.get(), connection.get()) < 0);
  else
    CHECK(handover_claim(&place, ticket.get()) == -EAGAIN);
  CHECK(world.counter("handed_over") == 0);
}

TEST_CASE("agent: a port whose program keeps its tickets is refused at once, and tried again",
          "[agent]") {
  if (cannot_hand_over_here()) return;
  World world(kRepair + "[timeouts]\ntransfer = \"3s\"\n");
  const UniqueFd listener = world.listener();
  world.start();
  const handover_place place = exec::place_of(world.config, world.self());
  std::uint16_t port = 9550;
  const auto transfer = [&] {
    const Endpoint client = client4(++port);
    world.transfer(transfer_of(client), snapshot_of(client, bytes_of(kRequest)));
  };
  transfer();
  const UniqueFd kept = accepted(listener);
  REQUIRE(kept);
  CHECK(is_refused(world.answer(), abi::REASON_NOT_TAKEN));
  CHECK(world.counter("tickets_untaken") == 1);
  CHECK(world.status()->at("handovers").at("deaf_ports") == nlohmann::json{80});
  transfer();
  CHECK(is_refused(world.answer(300ms), abi::REASON_NOT_TAKEN));
  // another program, which asks: found out by a ticket that no client waits for
  UniqueFd trial;
  REQUIRE(sys_test::holds_within(5s, [&] {
    transfer();
    world.answer(300ms);
    trial = accepted(listener, 0ms);
    return static_cast<bool>(trial);
  }));
  CHECK(handover_claim(&place, trial.get()) == -EAGAIN);
  CHECK(world.status()->at("handovers").at("deaf_ports").empty());
  transfer();
  const UniqueFd connection = accepted(listener);
  REQUIRE(connection);
  CHECK(handover_claim(&place, connection.get()) == 0);
  CHECK(is_resumed(world.answer()));
}
