// SPDX-License-Identifier: MIT
// The congestion window and ECN of a connection that goes on elsewhere, and that nothing of the program behind it is left.
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <linux/tcp.h>
#include <netinet/in.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <fstream>
#include <iostream>
#include <optional>

#include <tcpmig/codec.hpp>
#include <tcpmig/freeze.hpp>
#include <tcpmig/resume.hpp>

#include "catch.hpp"
#include "conn/socket_option.hpp"
#include "conn_world.hpp"

using namespace conn_test;
using tcpmig::FreezeKit;
using tcpmig::Frozen;
using tcpmig::ResumeKit;
using tcpmig::Scope;
using tcpmig::Snapshot;
using tcpmig::sys::UniqueFd;

namespace {

constexpr unsigned kFirstWindow = 10;  // of a new connection, segments (RFC 6928)

/// Prints why this kernel cannot, and returns true.
bool cannot_restore(const ResumeKit& kit) {
  if (kit.has_congestion_program()) return false;
  std::cout << "SKIPPED: " << kit.warnings().at(0) << std::endl;
  return true;
}

std::string available() {
  std::string names;
  std::getline(std::ifstream("/proc/sys/net/ipv4/tcp_available_congestion_control"), names);
  return names;
}

std::string algorithm_of(int fd) {
  char name[16]{};
  socklen_t length = sizeof name;
  tcpmig::sys::check("getsockopt", ::getsockopt(fd, IPPROTO_TCP, TCP_CONGESTION, name, &length));
  return name;
}

/// On its SYNs; the servers take it (tcp_ecn is 2 there).
void offer_ecn(const Namespace& client) {
  const auto in = client.enter();
  REQUIRE(std::ofstream("/proc/sys/net/ipv4/tcp_ecn").put('1').flush().good());
}

bool has_ecn(int fd) { return (info_of(fd).tcpi_options & TCPI_OPT_ECN) != 0; }

/// What comes in at the client from the servers' links from now on, from the IP header on.
UniqueFd packets_of(const Namespace& client) {
  const auto in = client.enter();
  return UniqueFd(tcpmig::sys::check(
      "packet socket", ::socket(AF_PACKET, SOCK_DGRAM | SOCK_CLOEXEC, htons(ETH_P_ALL))));
}

/// A TCP packet of the server with data, and ECT(0) (RFC 3168, 5), has come.
bool some_can_be_marked(int wire) {
  unsigned char packet[128];
  for (;;) {
    sockaddr_ll from{};
    socklen_t length = sizeof from;
    const ssize_t got = ::recvfrom(wire, packet, sizeof packet, MSG_DONTWAIT | MSG_TRUNC,
                                   reinterpret_cast<sockaddr*>(&from), &length);
    if (got < 0) return false;
    if (from.sll_pkttype == PACKET_OUTGOING || got < 100) continue;
    const bool ipv4 = packet[0] >> 4 == 4;
    if (packet[ipv4 ? 9 : 6] != IPPROTO_TCP) continue;
    const int ecn = ipv4 ? packet[1] & 3 : packet[1] >> 4 & 3;
    if (ecn == 2) return true;
  }
}

/// Its server has sent enough for its window to have grown.
Pair grown_pair(World& world, const std::string& algorithm) {
  Pair pair = connect_pair(world, world.a, Family::kIpv4);
  const int fd = pair.server.get();
  tcpmig::sys::check("setsockopt", ::setsockopt(fd, IPPROTO_TCP, TCP_CONGESTION, algorithm.data(),
                                                static_cast<socklen_t>(algorithm.size())));
  const Bytes much = pattern(4'000'000);
  REQUIRE(carry(fd, pair.client.get(), much) == much);
  wait_until("acknowledgements", [&] { return info_of(fd).tcpi_unacked == 0; });
  REQUIRE(info_of(fd).tcpi_snd_cwnd > 2 * kFirstWindow);
  return pair;
}

Snapshot moved_out(UniqueFd fd, bool by_program) {
  const FreezeKit kit(kit_options(by_program));
  Frozen frozen = tcpmig::freeze(std::move(fd), {}, kit, Scope::kWhole);
  Snapshot snapshot = tcpmig::decode(tcpmig::encode(frozen.snapshot())).value();
  frozen.commit();
  return snapshot;
}

UniqueFd resume_at(World& world, const Snapshot& snapshot, const ResumeKit* kit) {
  world.route_to(world.b);
  const auto in = world.b.enter();
  return tcpmig::repair_resume(snapshot, {}, {}, kit);
}

}  // namespace

TEST_CASE("the congestion window and the slow start threshold go along with a kit") {
  if (cannot_run_here()) return;
  const ResumeKit kit;
  if (cannot_restore(kit)) return;
  for (const bool by_program : {true, false})
    for (const std::string algorithm : {"cubic", "reno"}) {
      CAPTURE(by_program, algorithm);
      World world;
      Pair pair = grown_pair(world, algorithm);
      const auto before = info_of(pair.server.get());
      Snapshot snapshot = moved_out(std::move(pair.server), by_program);
      CHECK(snapshot.snd_cwnd == before.tcpi_snd_cwnd);
      CHECK(snapshot.snd_ssthresh == before.tcpi_snd_ssthresh);
      snapshot.snd_ssthresh = 77;
      pair.server = resume_at(world, snapshot, &kit);
      const auto after = info_of(pair.server.get());
      CHECK(after.tcpi_snd_cwnd == before.tcpi_snd_cwnd);
      CHECK(after.tcpi_snd_ssthresh == 77);
      CHECK(algorithm_of(pair.server.get()) == algorithm);
      CHECK(talk(pair.client.get(), pair.server.get(), 500'000));
    }
}

TEST_CASE("without a kit, or without a known window, a resumed connection starts slowly") {
  if (cannot_run_here()) return;
  const ResumeKit kit;
  for (const bool known : {true, false}) {
    CAPTURE(known);
    World world;
    Pair pair = grown_pair(world, "cubic");
    Snapshot snapshot = moved_out(std::move(pair.server), true);
    if (!known) snapshot.snd_cwnd = 0;
    pair.server = resume_at(world, snapshot, known ? nullptr : &kit);
    CHECK(info_of(pair.server.get()).tcpi_snd_cwnd == kFirstWindow);
    CHECK(talk(pair.client.get(), pair.server.get(), 500'000));
  }
}

TEST_CASE("a snapshot that asks for an absurd congestion window gets a large one") {
  if (cannot_run_here()) return;
  const ResumeKit kit;
  if (cannot_restore(kit)) return;
  World world;
  Pair pair = grown_pair(world, "cubic");
  Snapshot snapshot = moved_out(std::move(pair.server), true);
  snapshot.snd_cwnd = snapshot.snd_ssthresh = 0xffff'ffff;
  pair.server = resume_at(world, snapshot, &kit);
  CHECK(info_of(pair.server.get()).tcpi_snd_cwnd == 1U << 20);
  CHECK(talk(pair.client.get(), pair.server.get(), 500'000));
}

TEST_CASE("ECN goes along with a kit, and only where it was negotiated") {
  if (cannot_run_here()) return;
  const ResumeKit kit;
  if (cannot_restore(kit)) return;
  for (const Family family : {Family::kIpv4, Family::kIpv6})
    for (const bool negotiated : {true, false}) {
      CAPTURE(static_cast<int>(family), negotiated);
      World world;
      if (negotiated) offer_ecn(world.client);
      Pair pair = connect_pair(world, world.a, family);
      REQUIRE(talk(pair.client.get(), pair.server.get(), 20'000));
      REQUIRE(has_ecn(pair.server.get()) == negotiated);
      Snapshot snapshot = moved_out(std::move(pair.server), false);
      CHECK(snapshot.ecn == negotiated);
      snapshot.snd_cwnd = 0;  // not needed for it
      pair.server = resume_at(world, snapshot, &kit);
      CHECK(has_ecn(pair.server.get()) == negotiated);
      const UniqueFd wire = packets_of(world.client);
      CHECK(talk(pair.client.get(), pair.server.get(), 20'000));
      CHECK(some_can_be_marked(wire.get()) == negotiated);
    }
}

TEST_CASE("without a kit a resumed connection does without ECN") {
  if (cannot_run_here()) return;
  World world;
  offer_ecn(world.client);
  Pair pair = connect_pair(world, world.a, Family::kIpv4);
  REQUIRE(has_ecn(pair.server.get()));
  pair.server = resume_at(world, moved_out(std::move(pair.server), true), nullptr);
  CHECK(!has_ecn(pair.server.get()));
  const UniqueFd wire = packets_of(world.client);
  CHECK(talk(pair.client.get(), pair.server.get(), 20'000));
  CHECK(!some_can_be_marked(wire.get()));
}

TEST_CASE("a kit's congestion control goes with it, and with its process") {
  if (cannot_run_here()) return;
  std::optional<ResumeKit> kit(std::in_place);
  if (cannot_restore(*kit)) return;
  const auto count = [] {
    const std::string names = available();
    int found = 0;
    for (auto at = names.find("tcpmig_"); at != std::string::npos;
         at = names.find("tcpmig_", at + 1))
      ++found;
    return found;
  };
  const int with_one = count();
  REQUIRE(with_one > 0);
  int pipe[2];
  REQUIRE(::pipe(pipe) == 0);
  const pid_t child = ::fork();
  if (child == 0) {
    const ResumeKit own;
    static_cast<void>(!::write(pipe[1], "x", 1));
    ::pause();
    ::_exit(0);
  }
  char byte = 0;
  CHECK(::read(pipe[0], &byte, 1) == 1);
  CHECK(count() == with_one + 1);
  ::kill(child, SIGKILL);
  ::waitpid(child, nullptr, 0);
  wait_until("the end of the killed process's", [&] { return count() == with_one; });
  kit.reset();
  wait_until("the end of ours", [&] { return count() == with_one - 1; });
  ::close(pipe[0]);
  ::close(pipe[1]);
}
