// SPDX-License-Identifier: MIT
// What a freeze leaves behind: nothing after a rollback, and no packet after a commit.
#include <linux/tcp.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>

#include <algorithm>
#include <cstring>
#include <map>

#include <tcpmig/freeze.hpp>

#include "catch.hpp"
#include "conn/socket_lock.hpp"
#include "conn_world.hpp"
#include "sys/check.hpp"
#include "sys/tun.hpp"

using namespace conn_test;
using tcpmig::CapturedSegment;
using tcpmig::FreezeKit;
using tcpmig::Frozen;
using tcpmig::sys::UniqueFd;

namespace {

constexpr std::uint8_t kFin = 1, kRst = 4;

std::size_t data_of(const CapturedSegment& segment) {
  const std::size_t header = (std::to_integer<std::size_t>(segment.bytes.at(12)) >> 4) * 4;
  return segment.bytes.size() - header;
}

/// Takes captures until they hold `bytes` bytes of data.
std::vector<CapturedSegment> captures_of(FreezeKit& kit, std::size_t bytes) {
  std::vector<CapturedSegment> captured;
  wait_until("captures", [&] {
    kit.consume_captures([&](CapturedSegment segment) { captured.push_back(std::move(segment)); });
    std::size_t have = 0;
    for (const auto& segment : captured) have += data_of(segment);
    return have >= bytes;
  });
  return captured;
}

bool ended(int fd) {
  pollfd events{.fd = fd, .events = POLLRDHUP, .revents = 0};
  return ::poll(&events, 1, 0) == 1;
}

int option(int fd, int level, int name) {
  int value = -1;
  socklen_t length = sizeof(value);
  tcpmig::sys::check("getsockopt", ::getsockopt(fd, level, name, &value, &length));
  return value;
}

}  // namespace

namespace {

/// One segment of the client while frozen, then thawed: nothing may be sent again.
void roll_back(World& world, tcpmig::sys::Tun& tun, FreezeKit& kit, Family family, Race& race) {
  Pair pair = connect_pair(world, world.a, family);
  REQUIRE(talk(pair.client.get(), pair.server.get(), 100));
  wait_until("acknowledgements", [&] { return info_of(pair.server.get()).tcpi_unacked == 0; });
  const int number = pair.server.get();
  Frozen frozen = tcpmig::freeze(std::move(pair.server), {}, kit);
  const Bytes meanwhile = pattern(1200, 5);
  const unsigned before = info_of(pair.client.get()).tcpi_total_retrans;
  race.start();
  send_all(pair.client.get(), meanwhile);
  const auto captured = captures_of(kit, meanwhile.size());
  CHECK(captured.front().cookie == frozen.cookie());
  CHECK(frozen.late_bytes().empty());
  const UniqueFd back = frozen.thaw(captured, [&](auto packet) { CHECK(tun.inject(packet)); });
  CHECK(back.get() == number);
  wait_until("the bytes", [&] { return bytes_waiting(back.get()) == meanwhile.size(); });
  const unsigned after = info_of(pair.client.get()).tcpi_total_retrans;
  if (race.in_time()) CHECK(after == before);
  CHECK(receive_exactly(back.get(), meanwhile.size()) == meanwhile);
  CHECK(talk(pair.client.get(), back.get(), 100'000));
  CHECK(option(back.get(), IPPROTO_TCP, TCP_REPAIR) == 0);
  CHECK(kit.captures_lost() == 0);
}

}  // namespace

TEST_CASE("rollback: what the client sent meanwhile is there at once, and nothing is sent again") {
  if (cannot_run_here()) return;
  World world;
  auto tun = tun_in(world.a);
  for (const bool by_program : {true, false}) {
    FreezeKit kit(kit_options(by_program));
    for (const Family family : {Family::kIpv4, Family::kIpv6, Family::kMapped}) {
      CAPTURE(by_program, static_cast<int>(family));
      Race race;
      while (race.again()) roll_back(world, tun, kit, family, race);
    }
  }
}

TEST_CASE(
    "rollback: bytes that freeze read are in the snapshot, options of the socket are as before") {
  if (cannot_run_here()) return;
  World world;
  for (const bool by_program : {true, false}) {
    CAPTURE(by_program);
    FreezeKit kit(kit_options(by_program));
    Pair pair = connect_pair(world, world.a, Family::kIpv4);
    const int reuse = option(pair.server.get(), SOL_SOCKET, SO_REUSEADDR);
    CHECK(reuse == 1);  // inherited of the listener
    send_all(pair.client.get(), pattern(5000));
    wait_until("data", [&] { return bytes_waiting(pair.server.get()) == 5000; });
    Frozen frozen = tcpmig::freeze(std::move(pair.server), bytes_of("before"), kit);
    Bytes expected = bytes_of("before");
    const Bytes rest = pattern(5000);
    expected.insert(expected.end(), rest.begin(), rest.end());
    CHECK(frozen.snapshot().received == expected);
    const UniqueFd back = frozen.thaw({}, [](auto) {});
    CHECK(option(back.get(), SOL_SOCKET, SO_REUSEADDR) == reuse);
    CHECK(talk(pair.client.get(), back.get(), 1000));
  }
}

TEST_CASE("a frozen connection that is dropped ends like any other") {
  if (cannot_run_here()) return;
  World world;
  FreezeKit kit(kit_options());
  Pair pair = connect_pair(world, world.a, Family::kIpv4);
  {
    const Frozen frozen = tcpmig::freeze(std::move(pair.server), {}, kit);
  }
  wait_until("the end of the connection", [&] { return ended(pair.client.get()); });
}

TEST_CASE("commit sends nothing") {
  if (cannot_run_here()) return;
  World world;
  for (const bool by_program : {true, false}) {
    CAPTURE(by_program);
    FreezeKit kit(kit_options(by_program));
    Pair pair = connect_pair(world, world.a, Family::kIpv4);
    send_all(pair.client.get(), pattern(3000));
    REQUIRE(receive_exactly(pair.server.get(), 3000) == pattern(3000));
    Sniffer sniffer(world.client);
    Frozen frozen = tcpmig::freeze(std::move(pair.server), {}, kit);
    frozen.commit();
    CHECK(frozen.fd() == -1);
    const auto packets = sniffer.take_after_marker(world);
    for (const auto& packet : packets) CHECK((packet.tcp_flags & (kFin | kRst)) == 0);
    CHECK(!ended(pair.client.get()));
  }
}

TEST_CASE("a captured segment holds all that the receiver had joined") {
  if (cannot_run_here()) return;
  World world;
  FreezeKit kit(kit_options());
  Pair pair = connect_pair(world, world.a, Family::kIpv4);
  REQUIRE(talk(pair.client.get(), pair.server.get(), 2'000'000));  // opens the client's window
  wait_until("acknowledgements", [&] { return info_of(pair.server.get()).tcpi_unacked == 0; });
  Frozen frozen = tcpmig::freeze(std::move(pair.server), {}, kit);
  const Bytes much = pattern(60'000, 9);
  send_all(pair.client.get(), much);
  std::map<std::uint32_t, std::byte> by_sequence;  // retransmissions may come twice
  std::size_t largest = 0;
  for (const auto& segment : captures_of(kit, much.size())) {
    tcphdr header{};
    std::memcpy(&header, segment.bytes.data(), sizeof(header));
    CHECK(ntohs(header.dest) == 80);
    CHECK(header.doff == 8);  // 20 bytes and the timestamps option
    const std::size_t start = header.doff * 4U;
    for (std::size_t i = start; i < segment.bytes.size(); ++i)
      by_sequence[ntohl(header.seq) + static_cast<std::uint32_t>(i - start) -
                  frozen.snapshot().rcv_nxt.value] = segment.bytes[i];
    largest = std::max(largest, data_of(segment));
  }
  CHECK(largest > 10'000);
  REQUIRE(by_sequence.size() == much.size());
  CHECK(std::ranges::equal(by_sequence, much, {}, [](const auto& entry) { return entry.second; }));
  CHECK(kit.captures_lost() == 0);
}

TEST_CASE("bytes and a FIN that slipped past the lock are seen, and not consumed") {
  if (cannot_run_here()) return;
  World world;
  FreezeKit kit(kit_options());
  Pair pair = connect_pair(world, world.a, Family::kIpv4);
  Frozen frozen = tcpmig::freeze(std::move(pair.server), {}, kit);
  CHECK(frozen.late_bytes().empty());
  CHECK(!frozen.late_fin());
  const int unused = 0;  // what a softirq does that was past the filter: as if there were none
  REQUIRE(::setsockopt(frozen.fd(), SOL_SOCKET, SO_DETACH_FILTER, &unused, sizeof(unused)) == 0);
  send_all(pair.client.get(), bytes_of("late"));
  wait_until("late bytes", [&] { return frozen.late_bytes() == bytes_of("late"); });
  CHECK(frozen.late_bytes() == bytes_of("late"));
  CHECK(!frozen.late_fin());
  ::shutdown(pair.client.get(), SHUT_WR);
  wait_until("the FIN", [&] { return frozen.late_fin(); });
  CHECK(frozen.late_bytes() == bytes_of("late"));
  const UniqueFd back = frozen.thaw({}, [](auto) {});
  CHECK(receive_exactly(back.get(), 4) == bytes_of("late"));
}

TEST_CASE("the lock without a program: nothing is acknowledged until it is off") {
  if (cannot_run_here()) return;
  World world;
  Pair pair = connect_pair(world, world.a, Family::kIpv4);
  {
    const tcpmig::conn::SocketLock lock(pair.server.get(), -1);
    Sniffer sniffer(world.client);
    send_all(pair.client.get(), bytes_of("x"));
    sniffer.take_after_marker(world);
    CHECK(info_of(pair.client.get()).tcpi_unacked == 1);
    CHECK(bytes_waiting(pair.server.get()) == 0);
  }
  CHECK(receive_exactly(pair.server.get(), 1) == bytes_of("x"));
}
