// SPDX-License-Identifier: MIT
// Transfers of one part: opened by the tc program, confirmed by the agent.
#include <arpa/inet.h>
#include <linux/sockios.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#include <cstring>

#include "agent_world.hpp"
#include "catch.hpp"

using namespace agent_test;
using namespace tcpmig;

namespace {

const std::string kRequest = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";

tcp_info info_of(const UniqueFd& socket) {
  tcp_info info{};
  socklen_t length = sizeof info;
  REQUIRE(::getsockopt(socket.get(), IPPROTO_TCP, TCP_INFO, &info, &length) == 0);
  return info;
}

}  // namespace

TEST_CASE("agent: a stock listener accepts a transferred connection", "[agent]") {
  if (cannot_run_here()) return;
  World world;
  const UniqueFd listener = world.listener();
  world.start();
  REQUIRE(world.status()->at("kfunc") == true);
  for (const Endpoint& client : {client4(4001), client6(4001)}) {
    CAPTURE(client.str());
    world.transfer(transfer_of(client), snapshot_of(client, bytes_of(kRequest)));
    const UniqueFd connection = accepted(listener);
    REQUIRE(connection);
    CHECK(peer_of(connection) == client);
    CHECK(text_of(read_bytes(connection, kRequest.size())) == kRequest);
    const auto answer = world.answer();
    REQUIRE(is_resumed(answer));
    CHECK(ntohl(answer->header.generation) == 1000);
    CHECK(answer->payload.size() == sizeof(abi::wire_resumed));
    // the connection goes on with our numbers, options and clock
    const tcp_info info = info_of(connection);
    CHECK((info.tcpi_options & (TCPI_OPT_TIMESTAMPS | TCPI_OPT_SACK | TCPI_OPT_WSCALE)) == 7);
    CHECK(info.tcpi_snd_wscale == 7);
    CHECK(info.tcpi_rcv_wscale == 9);
    // the child's clock may tick between being set and being read
    CHECK(info.tcpi_rtt / 1000 >= 30);
    CHECK(info.tcpi_rtt / 1000 < 40);
    world.sent();
    REQUIRE(::send(connection.get(), "reply", 5, 0) == 5);
    std::vector<Sent> sent;
    REQUIRE(sys_test::holds_within(5s, [&] {
      for (Sent& segment : world.sent())
        if (!segment.data.empty()) sent.push_back(std::move(segment));
      return !sent.empty();
    }));
    CHECK(sent[0].to == client);
    CHECK(sent[0].seq == 70'000);
    CHECK(sent[0].ack == 5'000 + kRequest.size());
    CHECK(text_of(sent[0].data) == "reply");
  }
  CHECK(world.counter("opened") == 2);
  CHECK(world.counter("confirmed") == 2);
  CHECK(world.resets() == 0);
  CHECK(world.stop(SIGTERM) == 0);
}

namespace {

/// What the server has sent of its stream from `first` on, each part acknowledged by the client: until `length` bytes are there.
std::string read_as_client(World& world, const Endpoint& client, std::uint32_t client_seq,
                           std::uint32_t first, std::size_t length) {
  std::string text(length, '\0');
  std::size_t got = 0;
  sys_test::holds_within(10s, [&] {
    for (const Sent& segment : world.sent()) {
      const std::uint32_t at = segment.seq - first;
      if (segment.to != client || segment.data.empty() || at != got ||
          at + segment.data.size() > length)
        continue;
      std::memcpy(text.data() + at, segment.data.data(), segment.data.size());
      got += segment.data.size();
      world.send_segment(client, client_seq, first + static_cast<std::uint32_t>(got), kAck);
    }
    return got == length;
  });
  text.resize(got);
  return text;
}

int unacknowledged(const UniqueFd& socket) {
  int count = -1;
  REQUIRE(::ioctl(socket.get(), SIOCOUTQ, &count) == 0);
  return count;
}

}  // namespace

TEST_CASE("agent: sequence numbers that wrap in the request and in the reply", "[agent]") {
  if (cannot_run_here()) return;
  World world;
  const UniqueFd listener = world.listener();
  world.start();
  const std::string reply = text_of(pattern(20'000));
  std::uint16_t port = 4600;
  for (const bool ipv4 : {true, false})
    for (const std::uint32_t before : {0U, 1U, 700U, 5'000U}) {  // of the wrap
      const Endpoint client = ipv4 ? client4(++port) : client6(++port);
      CAPTURE(client.str(), before);
      const std::uint32_t ours = 0U - before;
      Snapshot snapshot = snapshot_of(client, bytes_of(kRequest));
      snapshot.timestamps.reset();  // the client's segments here carry none
      snapshot.snd_una = snapshot.snd_nxt = {ours};
      const std::uint32_t next = static_cast<std::uint32_t>(kRequest.size()) - before % 20;
      snapshot.rcv_nxt = {next};
      world.transfer(transfer_of(client), snapshot);
      const UniqueFd connection = accepted(listener);
      REQUIRE(connection);
      CHECK(text_of(read_bytes(connection, kRequest.size())) == kRequest);
      REQUIRE(is_resumed(world.answer()));
      world.sent();
      REQUIRE(::send(connection.get(), reply.data(), reply.size(), 0) ==
              static_cast<ssize_t>(reply.size()));
      CHECK(read_as_client(world, client, next, ours, reply.size()) == reply);
      CHECK(sys_test::holds_within(5s, [&] { return unacknowledged(connection) == 0; }));
      world.send_segment(client, next, ours + static_cast<std::uint32_t>(reply.size()), kAck | kPsh,
                         "more");
      CHECK(text_of(read_bytes(connection, 4)) == "more");
    }
  CHECK(world.resets() == 0);
}

TEST_CASE("agent: whatever the client negotiated", "[agent]") {
  if (cannot_run_here()) return;
  World world;
  const UniqueFd listener = world.listener();
  world.start();
  std::uint16_t port = 5000;
  for (const bool ipv4 : {true, false})
    for (unsigned options = 0; options < 8; ++options) {
      const Endpoint client = ipv4 ? client4(++port) : client6(++port);
      CAPTURE(client.str(), options);
      Snapshot snapshot = snapshot_of(client, bytes_of(kRequest));
      if ((options & 1U) == 0) snapshot.wscale.reset();
      if ((options & 2U) == 0) snapshot.sack = false;
      if ((options & 4U) == 0) snapshot.timestamps.reset();
      world.transfer(transfer_of(client), snapshot);
      const UniqueFd connection = accepted(listener);
      REQUIRE(connection);
      CHECK(text_of(read_bytes(connection, kRequest.size())) == kRequest);
      const tcp_info info = info_of(connection);
      CHECK(((info.tcpi_options & TCPI_OPT_WSCALE) != 0) == snapshot.wscale.has_value());
      CHECK(((info.tcpi_options & TCPI_OPT_SACK) != 0) == snapshot.sack);
      CHECK(((info.tcpi_options & TCPI_OPT_TIMESTAMPS) != 0) == snapshot.timestamps.has_value());
      CHECK(is_resumed(world.answer()));
    }
  CHECK(world.resets() == 0);
}

TEST_CASE("agent: listeners of every kind", "[agent]") {
  if (cannot_run_here()) return;
  World world;
  const UniqueFd any4 = world.listener(8081, false);
  const UniqueFd any6 = world.listener(8082, true);
  world.start();
  const UniqueFd own = [&] {
    const auto inside = world.server();
    return sys_test::bound_socket(SOCK_STREAM, World::vpa(client4(1), 8083));
  }();
  std::uint16_t port = 4100;
  for (const auto& [listener, number] : {std::pair{&any4, 8081}, {&any6, 8082}, {&own, 8083}}) {
    CAPTURE(number);
    const Endpoint client = client4(++port);
    world.transfer(transfer_of(client, 1000, static_cast<std::uint16_t>(number)),
                   snapshot_of(client, bytes_of(kRequest)));
    const UniqueFd connection = accepted(*listener);
    CHECK(connection);
    CHECK(is_resumed(world.answer()));
  }
}

TEST_CASE("agent: no listener, a full backlog, a kernel that refuses", "[agent]") {
  if (cannot_run_here()) return;
  World world;
  const UniqueFd listener = world.listener(80, true, 1);
  world.start();
  const auto ask = [&](const Endpoint& client, std::uint16_t port, std::uint16_t mss) {
    Snapshot snapshot = snapshot_of(client, bytes_of(kRequest));
    snapshot.mss = mss;
    world.transfer(transfer_of(client, 1000, port), snapshot);
    return world.answer();
  };
  CHECK(is_refused(ask(client4(4200), 99, 1400), abi::REASON_NO_LISTENER));
  const auto refused = ask(client4(4201), 80, 400);
  REQUIRE(is_refused(refused, abi::REASON_KERNEL_REFUSED));
  CHECK(ntohl(refused->header.detail) == EINVAL);
  // a backlog of 1 takes two
  CHECK(is_resumed(ask(client4(4202), 80, 1400)));
  CHECK(is_resumed(ask(client4(4203), 80, 1400)));
  CHECK(is_refused(ask(client4(4204), 80, 1400), abi::REASON_BACKLOG_FULL));
  // refused for good: the same generation again is the same answer, the next one is not
  CHECK(is_refused(ask(client4(4204), 80, 1400), abi::REASON_BACKLOG_FULL));
  const UniqueFd first = accepted(listener);
  CHECK(first);
  world.transfer(transfer_of(client4(4204), 1001), snapshot_of(client4(4204), bytes_of(kRequest)));
  CHECK(is_resumed(world.answer()));
  CHECK(world.resets() == 0);
}

TEST_CASE("agent: a transfer is opened once, whatever is repeated", "[agent]") {
  if (cannot_run_here()) return;
  World world;
  const UniqueFd listener = world.listener();
  world.start();
  const Endpoint client = client4(4300);
  const Snapshot snapshot = snapshot_of(client, bytes_of(kRequest));
  world.transfer(transfer_of(client), snapshot);
  UniqueFd connection = accepted(listener);
  REQUIRE(connection);
  CHECK(is_resumed(world.answer()));

  SECTION("while it lives") {
    for (int i = 0; i < 3; ++i) {
      world.transfer(transfer_of(client), snapshot);
      CHECK(is_resumed(world.answer()));
    }
    CHECK(world.counter("duplicate") == 3);
  }
  SECTION("after the server has reset it") {
    const linger now{1, 0};
    REQUIRE(::setsockopt(connection.get(), SOL_SOCKET, SO_LINGER, &now, sizeof now) == 0);
    connection.reset();
    world.transfer(transfer_of(client), snapshot);
    CHECK(is_resumed(world.answer()));
  }
  SECTION("an older generation") {
    world.transfer(transfer_of(client, 999), snapshot);
    const auto answer = world.answer();
    REQUIRE(is_refused(answer, abi::REASON_STALE_GENERATION));
    CHECK(ntohl(answer->header.current_generation) == 1000);
  }
  CHECK_FALSE(accepted(listener, 100ms));
}

TEST_CASE("agent: forged and malformed datagrams", "[agent]") {
  if (cannot_run_here()) return;
  World world;
  const UniqueFd listener = world.listener();
  world.start();
  const Endpoint client = client4(4400);
  const Snapshot snapshot = snapshot_of(client, bytes_of(kRequest));
  const Bytes good = world.sealed(control::transfer_messages(transfer_of(client), snapshot)[0]);
  const auto changed = [&](std::size_t offset) {
    Bytes bad = good;
    bad[offset] ^= std::byte{1};
    return bad;
  };
  std::uint64_t tags = 0;
  for (const std::size_t offset :
       {std::size_t{8}, std::size_t{33}, std::size_t{56}, std::size_t{70}, std::size_t{112},
        good.size() - 1}) {  // fields, the tag, the payload
    world.send_raw(changed(offset));
    CHECK(world.reaches("drop_bad_tag", ++tags));
  }
  world.send_raw(changed(6));  // a key id that nobody has
  CHECK(world.reaches("drop_bad_tag", ++tags));
  std::uint64_t messages = 0;
  for (const std::size_t offset : {4, 19, 21, 103}) {  // version, target, family, payload length
    world.send_raw(changed(offset));
    CHECK(world.reaches("drop_bad_message", ++messages));
  }
  world.send_raw(changed(0));  // not ours as far as the program sees
  world.send_raw(std::span(good).first(100));
  CHECK(world.reaches("bad_datagrams", 2));
  CHECK_FALSE(accepted(listener, 0ms));
  world.send_raw(good);
  const UniqueFd connection = accepted(listener);
  CHECK(connection);
}
