// SPDX-License-Identifier: MIT
// What the two recipes read, and what is restored of it, fact by fact.
#include <linux/tcp.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include <algorithm>
#include <iostream>
#include <stdexcept>

#include <tcpmig/codec.hpp>
#include <tcpmig/freeze.hpp>
#include <tcpmig/resume.hpp>

#include "catch.hpp"
#include "conn/segment.hpp"
#include "conn_world.hpp"
#include "sys/check.hpp"
#include "sys/netlink.hpp"
#include "sys/tun.hpp"

using namespace conn_test;
using tcpmig::FreezeKit;
using tcpmig::Frozen;
using tcpmig::Seq;
using tcpmig::Snapshot;
using tcpmig::sys::Endpoint;
using tcpmig::sys::UniqueFd;

namespace {

Snapshot snapshot_of(UniqueFd& fd, const FreezeKit& kit) {
  Frozen frozen = tcpmig::freeze(std::move(fd), {}, kit);
  Snapshot snapshot = frozen.snapshot();
  fd = frozen.thaw({}, [](auto) {});
  return snapshot;
}

/// Resumes `snapshot` in `where` and returns the socket.
UniqueFd resume_in(const Namespace& where, const Snapshot& snapshot) {
  const auto in = where.enter();
  return tcpmig::repair_resume(snapshot);
}

/// The two ends of a connection that never had a SYN, with the sequence numbers of our choice.
Pair made_up_pair(World& world, Family family, Seq client_next, Seq server_next) {
  Snapshot server;
  server.local = service(family);
  server.peer = {
      tcpmig::sys::Address::parse(family == Family::kIpv6 ? "2001:db8:c::1" : "198.51.100.1")
          .value(),
      40'000};
  server.rcv_nxt = client_next;
  server.snd_una = server.snd_nxt = server_next;
  server.snd_wnd = 60'000;
  server.mss = 1400;
  server.wscale = tcpmig::WindowScale{.snd = 7, .rcv = 7};
  server.timestamps =
      tcpmig::Timestamps{.tsval_now = 0xffff'fff0, .ts_recent = {}, .microseconds = false};
  server.sack = true;
  Snapshot client = server;
  std::swap(client.local, client.peer);
  client.rcv_nxt = server_next;
  client.snd_una = client.snd_nxt = client_next;
  return {.client = resume_in(world.client, client), .server = resume_in(world.a, server)};
}

}  // namespace

TEST_CASE("both recipes read the same of one connection") {
  if (cannot_run_here()) return;
  World world;
  const FreezeKit by_program(kit_options(true)), by_repair(kit_options(false));
  for (const Family family : {Family::kIpv4, Family::kIpv6, Family::kMapped})
    for (unsigned mask = 0; mask < 8; ++mask) {
      const Offer offer{
          .timestamps = (mask & 1) != 0, .sack = (mask & 2) != 0, .window_scale = (mask & 4) != 0};
      CAPTURE(static_cast<int>(family), mask);
      world.set_offer(offer);
      Pair pair = connect_pair(world, world.a, family);
      REQUIRE(talk(pair.client.get(), pair.server.get(), 20'000));
      wait_until("acknowledgements", [&] { return info_of(pair.server.get()).tcpi_unacked == 0; });
      Snapshot one = snapshot_of(pair.server, by_program);
      Snapshot other = snapshot_of(pair.server, by_repair);
      if (offer.timestamps) {
        const std::uint32_t ticks = other.timestamps->tsval_now - one.timestamps->tsval_now;
        CHECK(ticks < 1000);  // the second is younger, and never goes back
        CHECK(one.timestamps->ts_recent.value_or(0) != 0);
        CHECK(!other.timestamps->ts_recent);
        other.timestamps = one.timestamps;
      }
      CHECK(one == other);
      CHECK(one.window.has_value());
      CHECK(one.srtt_us > 0);
      CHECK(talk(pair.client.get(), pair.server.get(), 20'000));
    }
}

TEST_CASE("the peer's FIN is in the snapshot, and not counted in its numbers") {
  if (cannot_run_here()) return;
  World world;
  for (const bool by_program : {true, false})
    for (const std::size_t read : {0, 4, 10, 11}) {  // 11: the end of the stream too
      CAPTURE(by_program, read);
      const FreezeKit kit(kit_options(by_program));
      Pair pair = connect_pair(world, world.a, Family::kIpv4);
      const Seq begin = snapshot_of(pair.server, kit).rcv_nxt;
      send_all(pair.client.get(), bytes_of("last words"));
      ::shutdown(pair.client.get(), SHUT_WR);
      wait_until("the FIN", [&] { return info_of(pair.server.get()).tcpi_state == 8; });
      Bytes consumed = receive_exactly(pair.server.get(), std::min<std::size_t>(read, 10));
      char byte = 0;
      if (read > 10) REQUIRE(::recv(pair.server.get(), &byte, 1, 0) == 0);
      Frozen frozen = tcpmig::freeze(std::move(pair.server), consumed, kit);
      CHECK(frozen.snapshot().peer_closed());
      CHECK(frozen.snapshot().received == bytes_of("last words"));
      CHECK(frozen.snapshot().rcv_nxt == begin + 10);
      CHECK(!frozen.late_fin());
      CHECK(tcpmig::decode(tcpmig::encode(frozen.snapshot())) == frozen.snapshot());
      const UniqueFd thawed = frozen.thaw({}, [](auto) {});
      CHECK(::recv(thawed.get(), &byte, 1, MSG_DONTWAIT) == 0);
      CHECK(carry(thawed.get(), pair.client.get(), pattern(1000)) == pattern(1000));
    }
}

TEST_CASE("resume: a snapshot that knows only the peer's window") {
  if (cannot_run_here()) return;
  World world;
  const FreezeKit kit(kit_options(true));
  for (const Family family : {Family::kIpv4, Family::kIpv6}) {
    world.route_to(world.a);
    Pair pair = connect_pair(world, world.a, family);
    send_all(pair.client.get(), pattern(30'000));
    wait_until("data", [&] { return bytes_waiting(pair.server.get()) == 30'000; });
    Frozen frozen = tcpmig::freeze(std::move(pair.server), {}, kit);
    Snapshot snapshot = frozen.snapshot();
    snapshot.window.reset();
    world.route_to(world.b);
    const UniqueFd resumed = resume_in(world.b, snapshot);
    frozen.commit();
    CHECK(receive_exactly(resumed.get(), 30'000) == pattern(30'000));
    CHECK(talk(pair.client.get(), resumed.get(), 500'000));
  }
}

TEST_CASE("resume: at another address of ours, for a peer behind NAT") {
  if (cannot_run_here()) return;
  World world;
  Snapshot snapshot;
  snapshot.local = service(Family::kIpv4);
  snapshot.peer = {tcpmig::sys::Address::parse("198.51.100.1").value(), 4711};
  const Endpoint elsewhere{tcpmig::sys::Address::parse("100.64.1.2").value(),
                           8080};  // on no interface
  const auto in = world.b.enter();
  tcpmig::sys::Netlink netlink;
  netlink.add_route({.destination = tcpmig::sys::Prefix::parse("100.64.0.0/18").value(),
                     .gateway = {},
                     .oif = netlink.find_link("lo")->index,
                     .table = 255,
                     .local = true});
  const UniqueFd fd = tcpmig::repair_resume(snapshot, elsewhere);
  sockaddr_storage storage{};
  socklen_t length = sizeof(storage);
  REQUIRE(::getsockname(fd.get(), reinterpret_cast<sockaddr*>(&storage), &length) == 0);
  CHECK(Endpoint::from_sockaddr(storage) == elsewhere);
}

TEST_CASE("sequence numbers and timestamps wrap in the middle of a moved connection") {
  if (cannot_run_here()) return;
  World world;
  const FreezeKit kit(kit_options(true));
  for (const Family family : {Family::kIpv4, Family::kIpv6})
    for (const std::uint32_t before_wrap : {1U, 700U, 40'000U}) {
      CAPTURE(static_cast<int>(family), before_wrap);
      world.route_to(world.a);
      Pair pair = made_up_pair(world, family, Seq{0} - before_wrap, Seq{0} - before_wrap);
      const Bytes request = pattern(50'000);
      send_all(pair.client.get(), request);
      wait_until("data", [&] { return bytes_waiting(pair.server.get()) == request.size(); });
      Frozen frozen = tcpmig::freeze(std::move(pair.server), {}, kit);
      CHECK(frozen.snapshot().rcv_nxt == Seq{50'000 - before_wrap});
      world.route_to(world.b);
      const UniqueFd resumed = resume_in(world.b, frozen.snapshot());
      frozen.commit();
      CHECK(receive_exactly(resumed.get(), request.size()) == request);
      CHECK(talk(pair.client.get(), resumed.get(), 200'000));
    }
}

TEST_CASE("microsecond timestamps are restored and seen again") {
  if (cannot_run_here()) return;
  World world;
  Snapshot snapshot;
  snapshot.local = service(Family::kIpv4);
  snapshot.peer = {tcpmig::sys::Address::parse("198.51.100.1").value(), 4711};
  snapshot.mss = 1400;
  snapshot.timestamps =
      tcpmig::Timestamps{.tsval_now = 1'000'000'000, .ts_recent = {}, .microseconds = true};
  for (const bool by_program : {true, false}) {
    CAPTURE(by_program);
    const FreezeKit kit(kit_options(by_program));
    UniqueFd resumed;
    ++snapshot.peer.port;  // the former one is in FIN_WAIT1
    try {
      resumed = resume_in(world.b, snapshot);
    } catch (const std::runtime_error& error) {
      std::cout << "SKIPPED: " << error.what() << std::endl;
      return;
    }
    const Snapshot again = snapshot_of(resumed, kit);
    REQUIRE(again.timestamps.has_value());
    CHECK(again.timestamps->microseconds);
    const std::uint32_t passed = again.timestamps->tsval_now - snapshot.timestamps->tsval_now;
    CHECK(passed < 5'000'000);
  }
}

TEST_CASE("resume says which step failed") {
  if (cannot_run_here()) return;
  World world;
  Snapshot snapshot;
  snapshot.local = service(Family::kIpv4);
  snapshot.peer = {tcpmig::sys::Address::parse("203.0.113.99").value(), 4711};
  CHECK_THROWS_WITH(resume_in(world.b, snapshot),
                    Catch::Matchers::Contains("connect to 203.0.113.99:4711"));
}

TEST_CASE("a large queue is restored, beyond the socket's default buffer") {
  if (cannot_run_here()) return;
  World world;
  Snapshot snapshot;
  snapshot.local = service(Family::kIpv4);
  snapshot.peer = {tcpmig::sys::Address::parse("198.51.100.1").value(), 4711};
  snapshot.received = pattern(3'000'000);
  const UniqueFd resumed = resume_in(world.b, snapshot);
  CHECK(receive_exactly(resumed.get(), snapshot.received.size()) == snapshot.received);
}

namespace {

/// One segment of the client while frozen, given to server B: the client has no need to send it
/// again.
void send_after(World& world, tcpmig::sys::Tun& tun, FreezeKit& kit, Family family, Race& race) {
  world.route_to(world.a);
  Pair pair = connect_pair(world, world.a, family);
  REQUIRE(talk(pair.client.get(), pair.server.get(), 100));
  wait_until("acknowledgements", [&] { return info_of(pair.server.get()).tcpi_unacked == 0; });
  Frozen frozen = tcpmig::freeze(std::move(pair.server), {}, kit);
  const Bytes late = pattern(1000, 3);
  const unsigned before = info_of(pair.client.get()).tcpi_total_retrans;
  race.start();
  send_all(pair.client.get(), late);
  std::vector<tcpmig::CapturedSegment> captured;
  wait_until("the capture", [&] {
    return kit.consume_captures([&](auto segment) { captured.push_back(std::move(segment)); }) > 0;
  });
  world.route_to(world.b);
  const UniqueFd resumed = resume_in(world.b, frozen.snapshot());
  for (const auto& segment : captured)
    CHECK(tcpmig::conn::give_packets(frozen.snapshot().peer, frozen.snapshot().local, segment.bytes,
                                     [&](auto packet) { CHECK(tun.inject(packet)); }));
  frozen.commit();
  wait_until("the bytes", [&] { return bytes_waiting(resumed.get()) == late.size(); });
  const unsigned after = info_of(pair.client.get()).tcpi_total_retrans;
  if (race.in_time()) CHECK(after == before);
  CHECK(receive_exactly(resumed.get(), late.size()) == late);
  CHECK(talk(pair.client.get(), resumed.get(), 100'000));
}

}  // namespace

TEST_CASE("what arrives while the connection is frozen goes after it") {
  if (cannot_run_here()) return;
  World world;
  FreezeKit kit(kit_options(true));
  tcpmig::sys::Tun tun = tun_in(world.b);
  for (const Family family : {Family::kIpv4, Family::kIpv6}) {
    CAPTURE(static_cast<int>(family));
    Race race;
    while (race.again()) send_after(world, tun, kit, family, race);
  }
}
