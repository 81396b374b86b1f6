// SPDX-License-Identifier: MIT
// A connection is frozen on one server and goes on at another; the client notices nothing.
#include <linux/tcp.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include <tcpmig/codec.hpp>
#include <tcpmig/freeze.hpp>
#include <tcpmig/resume.hpp>

#include "catch.hpp"
#include "conn_world.hpp"
#include "sys/check.hpp"
#include "sys/tun.hpp"

using namespace conn_test;
using tcpmig::FreezeKit;
using tcpmig::Frozen;
using tcpmig::Snapshot;
using tcpmig::sys::UniqueFd;

namespace {

/// A snapshot goes to server B: encoded and decoded, the client's route changed.
UniqueFd resume_at_b(World& world, const Snapshot& snapshot) {
  const auto decoded = tcpmig::decode(tcpmig::encode(snapshot));
  REQUIRE(decoded.has_value());
  CHECK(*decoded == snapshot);
  world.route_to(world.b);
  const auto in = world.b.enter();
  return tcpmig::repair_resume(*decoded);
}

void check_options(int fd, const Offer& offer) {
  const unsigned present = info_of(fd).tcpi_options;
  CHECK(((present & TCPI_OPT_TIMESTAMPS) != 0) == offer.timestamps);
  CHECK(((present & TCPI_OPT_SACK) != 0) == offer.sack);
  CHECK(((present & TCPI_OPT_WSCALE) != 0) == offer.window_scale);
}

struct Case {
  Family family = Family::kIpv4;
  Offer offer = {};
  std::size_t waiting = 0;  ///< bytes in the socket that nobody has read
};

/// From A to B with `head` read by the server already and `waiting` bytes not yet.
void move_and_check(World& world, const FreezeKit& kit, const Case& test) {
  world.set_offer(test.offer);
  world.route_to(world.a);
  Pair pair = connect_pair(world, world.a, test.family);
  REQUIRE(talk(pair.client.get(), pair.server.get(), 1000));
  const Bytes head = bytes_of("GET / HTTP/1.1\r\n\r\n"), rest = pattern(test.waiting);
  send_all(pair.client.get(), head);
  const Bytes consumed = receive_exactly(pair.server.get(), head.size());
  send_all(pair.client.get(), rest);
  wait_until("the rest", [&] { return bytes_waiting(pair.server.get()) == rest.size(); });
  wait_until("acknowledgements", [&] { return info_of(pair.server.get()).tcpi_unacked == 0; });

  Frozen frozen = tcpmig::freeze(std::move(pair.server), consumed, kit);
  CHECK(frozen.snapshot().timestamps.has_value() == test.offer.timestamps);
  CHECK(frozen.snapshot().sack == test.offer.sack);
  CHECK(frozen.snapshot().wscale.has_value() == test.offer.window_scale);
  const UniqueFd resumed = resume_at_b(world, frozen.snapshot());
  frozen.commit();

  check_options(resumed.get(), test.offer);
  Bytes expected = head;
  expected.insert(expected.end(), rest.begin(), rest.end());
  CHECK(receive_exactly(resumed.get(), expected.size()) == expected);
  CHECK(talk(pair.client.get(), resumed.get(), 1'000'000));
}

}  // namespace

TEST_CASE("resume: a connection goes on at another server, either family, by either recipe") {
  if (cannot_run_here()) return;
  World world;
  for (const bool by_program : {true, false}) {
    const FreezeKit kit(kit_options(by_program));
    REQUIRE(kit.warnings().empty());
    REQUIRE(kit.has_dump_program() == by_program);
    for (const Family family : {Family::kIpv4, Family::kIpv6, Family::kMapped})
      for (const std::size_t waiting : {0, 100, 60'000}) {
        CAPTURE(by_program, static_cast<int>(family), waiting);
        move_and_check(world, kit, {.family = family, .waiting = waiting});
      }
  }
}

TEST_CASE("resume: only the options that the client offered") {
  if (cannot_run_here()) return;
  World world;
  for (const bool by_program : {true, false}) {
    const FreezeKit kit(kit_options(by_program));
    for (unsigned mask = 0; mask < 8; ++mask)
      for (const std::size_t waiting : {0, 60'000}) {
        const Offer offer{.timestamps = (mask & 1) != 0,
                          .sack = (mask & 2) != 0,
                          .window_scale = (mask & 4) != 0};
        CAPTURE(by_program, offer.timestamps, offer.sack, offer.window_scale, waiting);
        move_and_check(world, kit, {.offer = offer, .waiting = waiting});
      }
  }
}

TEST_CASE("resume: without window scaling the windows we announce are not divided") {
  if (cannot_run_here()) return;
  World world;
  world.set_offer({.window_scale = false});
  const FreezeKit kit(kit_options(true));
  Pair pair = connect_pair(world, world.a, Family::kIpv4);
  Frozen frozen = tcpmig::freeze(std::move(pair.server), {}, kit);
  const UniqueFd resumed = resume_at_b(world, frozen.snapshot());
  frozen.commit();
  REQUIRE(talk(pair.client.get(), resumed.get(), 100'000));
  Frozen again = tcpmig::freeze(UniqueFd(::dup(resumed.get())), {}, kit);
  CHECK(!again.snapshot().wscale);
  CHECK(info_of(pair.client.get()).tcpi_snd_wnd > 20'000);
}

TEST_CASE("resume: the client's MSS is kept") {
  if (cannot_run_here()) return;
  World world;
  for (const bool by_program : {true, false})
    for (const Family family : {Family::kIpv4, Family::kIpv6}) {
      CAPTURE(by_program, static_cast<int>(family));
      constexpr int kMss = 700;
      const FreezeKit kit(kit_options(by_program));
      world.route_to(world.a);
      const UniqueFd listener = listen_at(world.a, family);
      Pair pair = connect_pair(world, listener.get(), family, {.mss = kMss});
      const auto before = info_of(pair.server.get()).tcpi_snd_mss;
      Frozen frozen = tcpmig::freeze(std::move(pair.server), {}, kit);
      CHECK(frozen.snapshot().mss == kMss);
      const UniqueFd resumed = resume_at_b(world, frozen.snapshot());
      frozen.commit();
      CHECK(talk(pair.client.get(), resumed.get(), 50'000));
      CHECK(info_of(resumed.get()).tcpi_snd_mss == before);
      Frozen again = tcpmig::freeze(UniqueFd(::dup(resumed.get())), {}, kit);
      CHECK(again.snapshot().mss == kMss);
    }
}
