// SPDX-License-Identifier: MIT
// A connection that is frozen as a whole does not move on by itself: what it counts as sent was sent, and what its timers send
// does not hurt the next owner.
#include <linux/tcp.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include <chrono>
#include <thread>

#include <tcpmig/freeze.hpp>
#include <tcpmig/resume.hpp>

#include "catch.hpp"
#include "conn/socket_option.hpp"
#include "conn_world.hpp"

using namespace conn_test;
using namespace std::chrono_literals;
using tcpmig::FreezeKit;
using tcpmig::Scope;

namespace {

constexpr std::size_t kStream = 400'000;

void set(int fd, int level, int name, int value) {
  tcpmig::conn::set_option(fd, level, name, value, "setsockopt");
}

/// Its server has kStream bytes in its send queue, and sends them over most of a second, by a timer.
Pair paced_pair(World& world) {
  Pair pair = connect_pair(world, world.a, Family::kIpv4);
  set(pair.client.get(), SOL_SOCKET, SO_RCVBUFFORCE, 4 << 20);
  set(pair.server.get(), SOL_SOCKET, SO_SNDBUFFORCE, 4 << 20);
  set(pair.server.get(), SOL_SOCKET, SO_MAX_PACING_RATE, 600'000);
  send_all(pair.server.get(), pattern(kStream));
  return pair;
}

}  // namespace

TEST_CASE("a whole freeze: nothing counts as sent that has not left, and all leaves after a thaw") {
  if (cannot_run_here()) return;
  for (const bool by_program : {true, false}) {
    CAPTURE(by_program);
    World world;
    const FreezeKit kit(kit_options(by_program));
    for (int round = 0; round < 4; ++round) {
      Pair pair = paced_pair(world);
      std::this_thread::sleep_for(30ms);
      auto frozen = tcpmig::freeze(std::move(pair.server), {}, kit, Scope::kWhole);
      const std::size_t unsent = frozen.snapshot().unsent.size();
      CAPTURE(round, unsent, frozen.snapshot().sent.size());
      wait_until("what has left is there",
                 [&] { return bytes_waiting(pair.client.get()) >= kStream - unsent; });
      std::this_thread::sleep_for(50ms);  // its pacing timer ends
      CHECK(bytes_waiting(pair.client.get()) == kStream - unsent);
      pair.server = frozen.thaw({}, {});
      CHECK(receive_exactly(pair.client.get(), kStream) == pattern(kStream));
    }
  }
}

TEST_CASE("a whole freeze: a timer of the old socket costs the new one no packet") {
  if (cannot_run_here()) return;
  for (const bool by_program : {true, false}) {
    CAPTURE(by_program);
    World world;
    const FreezeKit kit(kit_options(by_program));
    Pair pair = connect_pair(world, world.a, Family::kIpv4);
    set(pair.server.get(), IPPROTO_TCP, TCP_QUICKACK, 0);  // acknowledges after 40 ms
    const auto segments = info_of(pair.server.get()).tcpi_segs_out;
    send_all(pair.client.get(), bytes_of("?"));
    wait_until("the byte", [&] { return bytes_waiting(pair.server.get()) == 1; });
    auto frozen = tcpmig::freeze(std::move(pair.server), {}, kit, Scope::kWhole);
    // on a busy machine it may have been quicker than the freeze
    wait_until("its timer", [&] { return info_of(frozen.fd()).tcpi_segs_out > segments; });
    tcpmig::sys::UniqueFd server;
    {
      const auto in = world.b.enter();
      server = tcpmig::repair_resume(frozen.snapshot());
    }
    world.route_to(world.b);
    frozen.commit();
    send_all(server.get(), pattern(100));
    CHECK(receive_exactly(pair.client.get(), 100) == pattern(100));
    CHECK(info_of(server.get()).tcpi_total_retrans == 0);
    CHECK(info_of(pair.client.get()).tcpi_total_retrans == 0);
    CHECK(receive_exactly(server.get(), 1) == bytes_of("?"));
    CHECK(talk(pair.client.get(), server.get(), 10'000));
  }
}
