// SPDX-License-Identifier: MIT
// Connections that programs give away: what an agent says as their source, and what it takes as their target. The test plays the switch and the
// other server.
#include <arpa/inet.h>
#include <linux/sock_diag.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <array>
#include <cstring>
#include <expected>
#include <future>
#include <tcpmig/migrate.hpp>
#include <tcpmig/resume.hpp>

#include "agent_steps.hpp"
#include "agent_world.hpp"
#include "catch.hpp"
#include "conn/parcel.hpp"
#include "control/whole.hpp"
#include "handover/handover.h"

using namespace agent_test;
using namespace tcpmig;

namespace {

UniqueFd listen_for_handoff(const World& world) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  (world.directory() / "handoff").string().copy(address.sun_path, sizeof address.sun_path - 1);
  UniqueFd server(::socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0));
  REQUIRE(::bind(server.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0);
  REQUIRE(::listen(server.get(), 4) == 0);
  return server;
}

void send_whole(World& world, const control::Transfer& transfer, const Snapshot& snapshot,
                const Bytes& payload) {
  for (const control::Outgoing& message : control::whole_messages(transfer, snapshot, payload))
    world.send(message);
}

/// In the middle: something sent and not acknowledged, something not sent.
Snapshot in_the_middle(const Endpoint& client) {
  Snapshot snapshot = snapshot_of(client, pattern(3'000));
  snapshot.local = World::vpa(client, 81);
  snapshot.sent = pattern(2'000);
  snapshot.snd_nxt = snapshot.snd_una + 2'000;
  snapshot.unsent = pattern(500);
  return snapshot;
}

/// Of the message that waits there; it stays.
UniqueFd peeked_descriptor(const UniqueFd& channel) {
  char text[256];
  alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int))] = {};
  iovec piece{text, sizeof text};
  msghdr message{};
  message.msg_iov = &piece;
  message.msg_iovlen = 1;
  message.msg_control = control;
  message.msg_controllen = sizeof control;
  if (!sys_test::holds_within(5s, [&] {
        return ::recvmsg(channel.get(), &message, MSG_PEEK | MSG_DONTWAIT | MSG_CMSG_CLOEXEC) > 0;
      }))
    return {};
  const cmsghdr* head = CMSG_FIRSTHDR(&message);
  int fd = -1;
  if (head != nullptr) std::memcpy(&fd, CMSG_DATA(head), sizeof fd);
  return UniqueFd(fd);
}

/// What filters of this socket have kept from it.
std::uint32_t drops_of(const UniqueFd& fd) {
  std::array<std::uint32_t, SK_MEMINFO_VARS> memory{};
  socklen_t length = sizeof memory;
  REQUIRE(::getsockopt(fd.get(), SOL_SOCKET, SO_MEMINFO, memory.data(), &length) == 0);
  return memory[SK_MEMINFO_DROPS];
}

/// A connection on port 80 that its program gives to "s2"; the test hears what the agent says of it.
struct Leaving {
  World world;
  UniqueFd listener = world.listener();
  UniqueFd connection;
  Endpoint client;
  std::future<std::expected<void, MigrateRefused>> outcome;
  control::Sealer other_server;

  explicit Leaving(Endpoint from, const std::string& patience = "500ms")
      : world("[timeouts]\ntransfer = \"" + patience + "\"\n", true),
        client(from),
        other_server(control::Secret::load(world.directory() / "secret"), 3, 0) {
    world.start();
    world.transfer(transfer_of(client), snapshot_of(client, pattern(100)));
    connection = accepted(listener);
    REQUIRE(connection);
    REQUIRE(is_resumed(world.answer()));
    REQUIRE(read_bytes(connection, 100) == pattern(100));
  }
  void leave(std::string target = "s2", Bytes blob = pattern(10)) {
    while (world.to_switch(60ms)) continue;  // repeats of what came before
    outcome = std::async(std::launch::async,
                         [this, target, blob, fd = UniqueFd(::dup(connection.get()))]() mutable {
                           return migrate(std::move(fd), target, blob, {.agent = agent()});
                         });
  }
  [[nodiscard]] std::string agent() const {
    return world.config.paths("s1").handover_socket().string();
  }
  /// The next message of this type to the switch.
  abi::wire_header said(abi::wire_type type, bool take_back = false) {
    for (;;) {
      const auto header = world.to_switch();
      REQUIRE(header);
      if (header->type == type && ((header->flags & abi::WIRE_FLAG_TAKE_BACK) != 0) == take_back)
        return *header;
    }
  }
  void answer(const abi::wire_header& commit, abi::wire_type type, abi::wire_reason reason,
              bool by_switch, std::uint32_t current = 0) {
    control::Outgoing message{commit, {}};
    message.header.type = type;
    message.header.flags = 0;
    message.header.target = htons(2);
    message.header.reason = static_cast<std::uint8_t>(reason);
    message.header.current_generation = htonl(current);
    message.header.detail = htonl(by_switch ? 77 : 0);
    if (by_switch) return world.send_as_switch(message);
    world.send_raw(World::sealed_by(other_server, message), commit.family != abi::FAMILY_IPV6);
  }
};

}  // namespace

TEST_CASE("agent: a flow that is being given away is not announced to another boot of the switch",
          "[agent]") {
  if (cannot_hand_over_here()) return;
  Leaving leaving(client4(9610), "5s");
  leaving.world.answer_heartbeat(leaving.world.heartbeat(), 7);
  leaving.leave();
  const abi::wire_header commit = leaving.said(abi::WIRE_COMMIT);
  leaving.world.answer_heartbeat(leaving.world.heartbeat(), 8);
  REQUIRE(leaving.world.reaches("announcements", 2));
  // repeats of the COMMIT, which the test does not answer; no word that the connection lives here
  while (const auto said = leaving.world.to_switch(600ms)) CHECK(said->type == abi::WIRE_COMMIT);
  // the switch has no entry, so it refuses all; what the other server says counts
  leaving.answer(commit, abi::WIRE_REFUSED, abi::REASON_NO_HANDOFF, false);
  const abi::wire_header back = leaving.said(abi::WIRE_COMMIT, true);
  leaving.answer(back, abi::WIRE_REFUSED, abi::REASON_NOT_ENTITLED, true);
  const abi::wire_header renewal = leaving.said(abi::WIRE_RENEW);
  CHECK(ntohl(renewal.generation) == ntohl(back.generation));
  const auto outcome = leaving.outcome.get();
  REQUIRE_FALSE(outcome);
  CHECK(outcome.error().fd);  // it goes on here
}

TEST_CASE("agent: a whole connection is taken by a program, with its blob", "[agent]") {
  if (cannot_hand_over_here()) return;
  World world({}, true);
  world.start();
  const UniqueFd server = listen_for_handoff(world);
  for (const Endpoint& client : {client4(6500), client6(6500)}) {
    const Snapshot snapshot = in_the_middle(client);
    const Bytes blob = pattern(300'000);
    send_whole(world, transfer_of(client, 1000, 81), snapshot,
               control::encode_whole(snapshot, blob));
    const UniqueFd agent = sys_test::accepted_socket(server);
    const auto taken = take_any_connection(agent.get());
    REQUIRE(taken);
    CHECK(taken->client == client.str());
    CHECK(taken->blob == blob);
    CHECK(is_resumed(world.answer()));
    CHECK(read_bytes(taken->fd, 3'000) == pattern(3'000));
    CHECK(sys_test::holds_within(5s, [&] {  // what was not sent goes out
      for (const Sent& segment : world.sent())
        if (segment.seq == snapshot.snd_nxt.value && segment.data.size() == 500) return true;
      return false;
    }));
  }
  CHECK(world.counter("whole_taken") == 2);

  const Endpoint client = client4(6501);
  const Snapshot snapshot = in_the_middle(client);
  const Bytes payload = control::encode_whole(snapshot, {});
  // its port has no handoff
  send_whole(world, transfer_of(client, 1000, 80), snapshot, payload);
  CHECK(is_refused(world.answer(), abi::REASON_NO_HANDOFF));
  // no snapshot, and one of another client
  send_whole(world, transfer_of(client, 1001, 81), snapshot, pattern(1'000));
  CHECK(is_refused(world.answer(), abi::REASON_KERNEL_REFUSED));
  send_whole(world, transfer_of(client, 1002, 81), snapshot,
             control::encode_whole(in_the_middle(client4(6502)), {}));
  CHECK(is_refused(world.answer(), abi::REASON_KERNEL_REFUSED));
  CHECK(sys_test::accepted_socket(server));  // for each it has asked the program
  CHECK(sys_test::accepted_socket(server));
  // a program that expects none
  send_whole(world, transfer_of(client, 1003, 81), snapshot, payload);
  {
    const UniqueFd agent = sys_test::accepted_socket(server);
    CHECK_THROWS_AS(take_connection(agent.get()), std::runtime_error);
  }
  CHECK(is_refused(world.answer(), abi::REASON_NOT_TAKEN));
  // an older version does not know the flag
  Bytes old = world.sealed(
      control::whole_messages(transfer_of(client, 1004, 81), snapshot, payload).back());
  old[4] = std::byte{abi::WIRE_VERSION};
  const auto before = world.counter("drop_bad_message") + world.counter("bad_datagrams");
  world.send_raw(old);
  CHECK(sys_test::holds_within(5s, [&] {
    return world.counter("drop_bad_message") + world.counter("bad_datagrams") == before + 1;
  }));
  CHECK(world.resets() == 0);
}

TEST_CASE("agent: many parts of a whole connection that are lost are asked for", "[agent]") {
  if (cannot_hand_over_here()) return;
  World world({}, true);
  world.start();
  const UniqueFd server = listen_for_handoff(world);
  const Endpoint client = client4(6510);
  const Snapshot snapshot = in_the_middle(client);
  const Bytes payload = control::encode_whole(snapshot, pattern(kMaxBlob));
  const auto parts = control::whole_messages(transfer_of(client, 1000, 81), snapshot, payload);
  REQUIRE(parts.size() > 700);
  world.send(parts.back());
  std::size_t asked = 0;
  UniqueFd agent;
  while (const auto question = world.answer(500ms)) {
    REQUIRE(question->header.type == abi::WIRE_MISSING);
    CHECK(question->payload.size() <= 1024);
    asked += question->payload.size() / 2;
    for (std::size_t i = 0; i + 1 < question->payload.size(); i += 2)
      world.send(parts.at(std::to_integer<std::size_t>(question->payload[i]) << 8U |
                          std::to_integer<std::size_t>(question->payload[i + 1])));
  }
  CHECK(asked >= parts.size() - 1);
  agent = sys_test::accepted_socket(server);
  const auto taken = take_any_connection(agent.get());
  REQUIRE(taken);
  CHECK(taken->blob == pattern(kMaxBlob));
  CHECK(is_resumed(world.answer()));
}

TEST_CASE("agent: a connection leaves, and what comes late follows it", "[agent]") {
  if (cannot_run_here()) return;
  for (const Endpoint& client : {client4(6600), client6(6600)}) {
    Leaving leaving(client, "2s");
    World& world = leaving.world;
    leaving.leave();
    const abi::wire_header commit = leaving.said(abi::WIRE_COMMIT);
    CHECK(ntohs(commit.target) == 3);
    CHECK(ntohs(commit.target_port) == 80);
    CHECK(ntohl(commit.generation) == 1001);
    CHECK(commit.version == abi::WIRE_VERSION_WHOLE);
    leaving.answer(commit, abi::WIRE_RESUMED, abi::REASON_NONE, false);
    CHECK(leaving.outcome.get());
    CHECK(world.counter("migrated") == 1);
    leaving.connection.reset();  // the descriptor that its program had
    REQUIRE(sys_test::holds_within(
        5s, [&] { return world.status()->at("departures").at("under_way") == 0; }));
    leaving.answer(commit, abi::WIRE_RESUMED, abi::REASON_NONE, false);
    CHECK(world.reaches("late_answers", 1));
    CHECK(sys_test::holds_within(5s, [&] {
      world.send_segment(client, 5'100, 70'000, kAck | kPsh, "late");
      return world.counter("sent_on") > 0;
    }));
    CHECK(world.resets() == 0);
    CHECK(world.status()->at("live") == 0);
  }
}

TEST_CASE("agent: a connection that is refused, or not answered, comes back", "[agent]") {
  if (cannot_run_here()) return;
  Leaving leaving(client4(6601));
  World& world = leaving.world;
  std::uint32_t generation = 1001;
  const auto taken_back = [&] {
    const abi::wire_header back = leaving.said(abi::WIRE_COMMIT, true);
    generation = ntohl(back.generation);
    leaving.answer(back, abi::WIRE_RESUMED, abi::REASON_NONE, true);
    const auto outcome = leaving.outcome.get();
    REQUIRE_FALSE(outcome);
    CHECK(outcome.error().fd);
    return outcome.error().error;
  };
  leaving.leave();
  abi::wire_header commit = leaving.said(abi::WIRE_COMMIT);
  leaving.answer(commit, abi::WIRE_REFUSED, abi::REASON_NOT_TAKEN, false);
  CHECK(taken_back() == ECONNREFUSED);
  CHECK(generation == 1002);
  CHECK(ntohl(leaving.said(abi::WIRE_RENEW).generation) == 1002);

  leaving.leave();  // silence
  commit = leaving.said(abi::WIRE_COMMIT);
  CHECK(ntohl(commit.generation) == 1003);
  CHECK(taken_back() == ETIMEDOUT);
  CHECK(world.counter("migrate_returned") == 2);

  // the switch has seen nothing of all this: it still knows the generation from before
  leaving.leave();
  commit = leaving.said(abi::WIRE_COMMIT);
  leaving.answer(commit, abi::WIRE_REFUSED, abi::REASON_NOT_TAKEN, false);
  const abi::wire_header back = leaving.said(abi::WIRE_COMMIT, true);
  leaving.answer(back, abi::WIRE_REFUSED, abi::REASON_STALE_GENERATION, true,
                 ntohl(commit.generation) - 1);
  const abi::wire_header below = leaving.said(abi::WIRE_COMMIT, true);
  CHECK(below.generation == commit.generation);
  leaving.answer(below, abi::WIRE_RESUMED, abi::REASON_NONE, true);
  CHECK(taken_back() == ECONNREFUSED);
  CHECK(generation == ntohl(back.generation));

  REQUIRE(::send(leaving.connection.get(), "still here", 10, 0) == 10);
  CHECK(sys_test::holds_within(5s, [&] {
    for (const Sent& segment : world.sent())
      if (text_of(segment.data) == "still here") return true;
    return false;
  }));
}

TEST_CASE("agent: a switch that has lost its table: nobody knows who has the connection",
          "[agent]") {
  if (cannot_run_here()) return;
  Leaving leaving(client4(6602));
  leaving.world.answer_heartbeat(leaving.world.heartbeat(), 42);
  leaving.leave();
  const abi::wire_header commit = leaving.said(abi::WIRE_COMMIT);
  leaving.answer(commit, abi::WIRE_REFUSED, abi::REASON_OTHER_BOOT, true);
  const abi::wire_header back =
      leaving.said(abi::WIRE_COMMIT, true);  // the target was asked, and is silent
  leaving.answer(back, abi::WIRE_REFUSED, abi::REASON_OTHER_BOOT, true);
  const auto outcome = leaving.outcome.get();
  REQUIRE_FALSE(outcome);
  CHECK(outcome.error().error == ENOTRECOVERABLE);
  CHECK_FALSE(outcome.error().fd);
  CHECK(leaving.world.counter("migrate_unknown") == 1);
}

TEST_CASE("agent: what a program may not give away stays", "[agent]") {
  if (cannot_run_here()) return;
  Leaving leaving(client4(6603));
  World& world = leaving.world;
  const auto refusal_of = [&](const std::string& target) {
    leaving.leave(target);
    const auto outcome = leaving.outcome.get();
    REQUIRE_FALSE(outcome);
    CHECK(outcome.error().fd);
    return outcome.error().error;
  };
  CHECK(refusal_of("s3") == EADDRNOTAVAIL);
  CHECK(refusal_of("s1") == EADDRNOTAVAIL);
  CHECK(refusal_of("d1") == EADDRNOTAVAIL);
  CHECK(world.counter("migrate_no_target") == 3);
  const int offset = 0;
  if (::setsockopt(leaving.connection.get(), SOL_SOCKET, SO_PEEK_OFF, &offset, sizeof offset) ==
      0) {
    CHECK(refusal_of("s2") == EOPNOTSUPP);
    CHECK(world.counter("migrate_not_frozen") == 1);
    const int off = -1;
    ::setsockopt(leaving.connection.get(), SOL_SOCKET, SO_PEEK_OFF, &off, sizeof off);
  }
  const auto refused = [&](UniqueFd fd) {
    const auto outcome = migrate(std::move(fd), "s2", {}, {.agent = leaving.agent()});
    REQUIRE_FALSE(outcome);
    CHECK(outcome.error().fd);
    return outcome.error().error;
  };
  CHECK(refused(UniqueFd(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0))) == EPROTOTYPE);
  CHECK(world.counter("migrate_not_tcp") == 1);
  CHECK(refused(UniqueFd(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0))) == ENOTCONN);
  CHECK(world.counter("migrate_not_ours") == 1);
  // a blob that the library would not have sent
  const UniqueFd blob = conn::make_blob(pattern(kMaxBlob + 1));
  const UniqueFd channel(::socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0));
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  leaving.agent().copy(address.sun_path, sizeof address.sun_path - 1);
  REQUIRE(::connect(channel.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) ==
          0);
  const std::string message = std::string("tcpmig") + char{HANDOVER_VERSION} + "Ms2";
  const int descriptors[]{leaving.connection.get(), blob.get()};
  conn::send_parcel(channel.get(), std::as_bytes(std::span(message)), descriptors);
  const auto verdict = conn::receive_parcel(channel.get());
  REQUIRE(verdict);
  CHECK(world.counter("migrate_too_large") == 1);
  // two at once
  leaving.leave();
  const abi::wire_header commit = leaving.said(abi::WIRE_COMMIT);
  const auto second =
      migrate(UniqueFd(::dup(leaving.connection.get())), "s2", {}, {.agent = leaving.agent()});
  REQUIRE_FALSE(second);
  CHECK(second.error().error == EALREADY);
  CHECK(world.counter("migrate_busy") == 1);
  leaving.answer(commit, abi::WIRE_RESUMED, abi::REASON_NONE, false);
  CHECK(leaving.outcome.get());
}

TEST_CASE("agent: the next agent asks what became of a connection that was leaving", "[agent]") {
  if (cannot_run_here()) return;
  Leaving leaving(client4(6604));
  World& world = leaving.world;
  leaving.leave();
  const abi::wire_header commit = leaving.said(abi::WIRE_COMMIT);
  REQUIRE(world.stop(SIGKILL) == 128 + SIGKILL);
  world.start();
  // It asks the other server, which is silent, and takes the connection back.
  const abi::wire_header back = leaving.said(abi::WIRE_COMMIT, true);
  CHECK(ntohl(back.generation) > ntohl(commit.generation));
  leaving.answer(back, abi::WIRE_RESUMED, abi::REASON_NONE, true);
  const auto outcome = leaving.outcome.get();
  REQUIRE_FALSE(outcome);
  CHECK(outcome.error().fd);
  CHECK(outcome.error().error == ECONNABORTED);
  CHECK(world.counter("migrate_recovered") == 1);
}

TEST_CASE(
    "agent: what comes while a connection is offered is given to it, what is too much is counted",
    "[agent]") {
  if (cannot_hand_over_here()) return;
  World world("[limits]\nhold_packets = 2\n", true);
  world.start();
  const UniqueFd server = listen_for_handoff(world);
  std::uint64_t dropped = 0;
  for (const Endpoint& client : {client4(6605), client6(6605)}) {
    const Snapshot snapshot = snapshot_of(client, pattern(100));
    world.transfer(transfer_of(client, 1000, 81), snapshot);
    const UniqueFd agent = sys_test::accepted_socket(server);
    REQUIRE(agent);
    const UniqueFd offered = peeked_descriptor(agent);
    REQUIRE(offered);  // and the agent waits for TAKEN
    std::uint32_t seq = snapshot.rcv_nxt.value;
    for (const std::string_view text : {"one", "two", "three"}) {
      world.send_segment(client, seq, snapshot.snd_nxt.value, kAck | kPsh, text, 81);
      seq += static_cast<std::uint32_t>(text.size());
    }
    REQUIRE(sys_test::holds_within(5s, [&] { return drops_of(offered) == 3; }));
    const auto [taken, note] = take_connection(agent.get()).value();
    CHECK(is_resumed(world.answer()));
    CHECK(read_bytes(taken, 100) == pattern(100));
    CHECK(text_of(read_bytes(taken, 6)) == "onetwo");
    CHECK(world.reaches("captures_dropped", ++dropped));
  }
}
