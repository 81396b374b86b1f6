// SPDX-License-Identifier: MIT
// What goes with a connection besides its bytes, and what stands in the way of a resume.
#include <fcntl.h>
#include <linux/bpf.h>  // the TCP states
#include <linux/tcp.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include <algorithm>
#include <fstream>
#include <optional>
#include <string>
#include <vector>

#include <tcpmig/freeze.hpp>
#include <tcpmig/resume.hpp>

#include "catch.hpp"
#include "conn/cgroup_programs.hpp"
#include "conn/dump.hpp"
#include "conn/settings.hpp"
#include "conn/socket_lock.hpp"
#include "host_b.hpp"
#include "sys/unique_fd.hpp"

using namespace conn_test;
using namespace tcpmig::conn;
using tcpmig::FreezeKit;
using tcpmig::Frozen;
using tcpmig::Scope;
using tcpmig::Snapshot;
using tcpmig::TcpState;
using tcpmig::sys::UniqueFd;

namespace {

void set(const UniqueFd& fd, int level, int name, int value) {
  REQUIRE(::setsockopt(fd.get(), level, name, &value, sizeof value) == 0);
}

int get(const UniqueFd& fd, int level, int name) {
  int value = 0;
  socklen_t length = sizeof value;
  REQUIRE(::getsockopt(fd.get(), level, name, &value, &length) == 0);
  return value;
}

void write_sysctl(const std::string& name, int value) {
  std::ofstream file("/proc/sys/" + name);
  file << value << std::flush;
  REQUIRE(file);
}

struct Setting {
  int level, name, value;
};

/// Each other than what a new socket has.
std::vector<Setting> settings_of(Family family) {
  std::vector<Setting> all{{IPPROTO_TCP, TCP_NODELAY, 1},
                           {SOL_SOCKET, SO_KEEPALIVE, 1},
                           {IPPROTO_TCP, TCP_KEEPIDLE, 77},
                           {IPPROTO_TCP, TCP_KEEPINTVL, 7},
                           {IPPROTO_TCP, TCP_KEEPCNT, 3},
                           {IPPROTO_TCP, TCP_USER_TIMEOUT, 12'345},
                           {IPPROTO_TCP, TCP_NOTSENT_LOWAT, 16'384},
                           {SOL_SOCKET, SO_SNDBUF, 50'000},
                           {SOL_SOCKET, SO_RCVBUF, 70'000},
                           {SOL_SOCKET, SO_BUF_LOCK, 3},
                           {SOL_SOCKET, SO_PRIORITY, 5},
                           {SOL_SOCKET, SO_MARK, 0x1234}};
  if (family == Family::kIpv6) {
    all.push_back({IPPROTO_IPV6, IPV6_TCLASS, 0xb8});
    all.push_back({IPPROTO_IPV6, IPV6_UNICAST_HOPS, 33});
  } else {
    all.push_back({IPPROTO_IP, IP_TOS, 0xb8});
    all.push_back({IPPROTO_IP, IP_TTL, 33});
  }
  std::ranges::stable_sort(all, {}, [](const Setting& one) { return one.name == SO_PRIORITY; });
  return all;
}

}  // namespace

TEST_CASE("resume: what the application has set on its socket goes with it, each alone and all") {
  if (cannot_run_here()) return;
  World world;
  FreezeKit kit(kit_options(true));
  for (const Family family : {Family::kIpv4, Family::kIpv6, Family::kMapped}) {
    const auto all = settings_of(family);
    for (std::size_t only = 0; only <= all.size(); ++only) {
      CAPTURE(static_cast<int>(family), only);
      world.route_to(world.a);
      Pair pair = connect_pair(world, world.a, family);
      std::vector<int> before;
      for (std::size_t i = 0; i < all.size(); ++i)
        if (only == i || only == all.size())
          set(pair.server, all[i].level, all[i].name, all[i].value);
      for (const Setting& one : all) before.push_back(get(pair.server, one.level, one.name));
      const linger at_once{1, 9};
      REQUIRE(::setsockopt(pair.server.get(), SOL_SOCKET, SO_LINGER, &at_once, sizeof at_once) ==
              0);
      REQUIRE(::setsockopt(pair.server.get(), IPPROTO_TCP, TCP_CONGESTION, "reno", 4) == 0);
      Frozen frozen = tcpmig::freeze(std::move(pair.server), {}, kit, Scope::kWhole);
      const UniqueFd resumed = HostB(world, kit).resume(frozen);
      frozen.commit();
      for (std::size_t i = 0; i < all.size(); ++i) {
        CAPTURE(all[i].level, all[i].name);
        CHECK(get(resumed, all[i].level, all[i].name) == before[i]);
      }
      linger kept{};
      socklen_t length = sizeof kept;
      REQUIRE(::getsockopt(resumed.get(), SOL_SOCKET, SO_LINGER, &kept, &length) == 0);
      CHECK((kept.l_onoff == 1 && kept.l_linger == 9));
      char name[16] = {};
      length = sizeof name;
      REQUIRE(::getsockopt(resumed.get(), IPPROTO_TCP, TCP_CONGESTION, name, &length) == 0);
      CHECK(std::string(name) == "reno");
      CHECK(get(resumed, SOL_SOCKET, SO_DOMAIN) == (family == Family::kIpv4 ? AF_INET : AF_INET6));
      CHECK(talk(pair.client.get(), resumed.get(), 10'000));
      const linger off{};
      REQUIRE(::setsockopt(resumed.get(), SOL_SOCKET, SO_LINGER, &off, sizeof off) == 0);
    }
  }
}

TEST_CASE("the dump program says of the settings what getsockopt says, each alone and all") {
  if (cannot_run_here() || !has_cgroup2()) return;
  const bool by_copy = GENERATE(false, true);
  if (!by_copy && dumps_by_copy()) return;  // the kernel has no other way
  World world;
  CgroupPrograms programs(cgroup_name());
  REQUIRE_NOTHROW(programs.attach_dump(by_copy));
  const auto enter = world.a.enter();  // keep-alive's defaults are the namespace's
  write_sysctl("net/ipv4/tcp_keepalive_time", 1'234);
  write_sysctl("net/ipv4/tcp_keepalive_probes", 5);
  write_sysctl("net/ipv4/ip_default_ttl", 44);
  int offset = 0;  // TCP has it since Linux 6.9
  socklen_t length = sizeof offset;
  const bool can_peek_at_offset =
      ::getsockopt(connect_pair(world, world.a, Family::kIpv4).server.get(), SOL_SOCKET,
                   SO_PEEK_OFF, &offset, &length) == 0;
  for (const Family family : {Family::kIpv4, Family::kIpv6, Family::kMapped}) {
    auto all = settings_of(family);
    all.push_back({IPPROTO_TCP, TCP_CORK, 1});
    all.push_back({SOL_SOCKET, SO_ZEROCOPY, 1});
    if (can_peek_at_offset) all.push_back({SOL_SOCKET, SO_PEEK_OFF, 7});
    for (std::size_t only = 0; only <= all.size() + 1; ++only) {
      CAPTURE(static_cast<int>(family), by_copy, only);
      const Pair pair = connect_pair(world, world.a, family);
      const int fd = pair.server.get();
      for (std::size_t i = 0; i < all.size(); ++i)
        if (only == i || only == all.size())
          set(pair.server, all[i].level, all[i].name, all[i].value);
      if (only == all.size()) {
        const linger at_once{1, 9};
        REQUIRE(::setsockopt(fd, SOL_SOCKET, SO_LINGER, &at_once, sizeof at_once) == 0);
        REQUIRE(::setsockopt(fd, IPPROTO_TCP, TCP_CONGESTION, "reno", 4) == 0);
        REQUIRE(::fcntl(fd, F_SETFL, O_NONBLOCK) == 0);
      }
      const bool ipv6 = family == Family::kIpv6;
      const auto dump = dump_by_program(fd, Scope::kWhole);
      REQUIRE((dump && dump->settings));
      const tcpmig::SocketSettings said = dump_settings(fd, ipv6, *dump->settings);
      const tcpmig::SocketSettings truth = dump_settings(fd, ipv6);
      CHECK(said == truth);
      CHECK(said.congestion == truth.congestion);
      CHECK((dump->settings->flags & tcpmig::abi::DUMP_ZEROCOPY) / tcpmig::abi::DUMP_ZEROCOPY ==
            static_cast<unsigned>(get(pair.server, SOL_SOCKET, SO_ZEROCOPY)));
      if (can_peek_at_offset)
        CHECK(dump->settings->peek_offset == get(pair.server, SOL_SOCKET, SO_PEEK_OFF));
      else
        CHECK(dump->settings->peek_offset == -1);
    }
  }
}

TEST_CASE("resume: the peer's clock is known before the peer speaks again") {
  if (cannot_run_here() || !has_cgroup2()) return;
  World world;
  FreezeKit kit(kit_options(true));
  for (const Family family : {Family::kIpv4, Family::kIpv6, Family::kMapped})
    for (const bool peer_closed : {false, true}) {
      CAPTURE(static_cast<int>(family), peer_closed);
      world.route_to(world.a);
      Pair pair = connect_pair(world, world.a, family);
      REQUIRE(talk(pair.client.get(), pair.server.get(), 20'000));
      if (peer_closed) {
        ::shutdown(pair.client.get(), SHUT_WR);
        wait_until("the FIN", [&] { return state_of(pair.server) == BPF_TCP_CLOSE_WAIT; });
      }
      Frozen frozen = tcpmig::freeze(std::move(pair.server), {}, kit, Scope::kWhole);
      const auto clock = frozen.snapshot().timestamps.value().ts_recent.value();
      const UniqueFd resumed = HostB(world, kit).resume(frozen);
      frozen.commit();
      wait_until("what was made up",
                 [&] { return dump_by_program(resumed.get()).value().state.ts_recent != 0; });
      CHECK(dump_by_program(resumed.get()).value().state.ts_recent == clock);
      CHECK(state_of(resumed) == (peer_closed ? BPF_TCP_CLOSE_WAIT : BPF_TCP_ESTABLISHED));
    }
}

TEST_CASE("resume: what is corked stays back until it is let go") {
  if (cannot_run_here()) return;
  World world;
  FreezeKit kit(kit_options(true));
  Pair pair = connect_pair(world, world.a, Family::kIpv4);
  limit_waiting(pair.client.get());
  set(pair.server, IPPROTO_TCP, TCP_CORK, 1);
  send_all(pair.server.get(), bytes_of("half a line, "));
  Frozen frozen = tcpmig::freeze(std::move(pair.server), {}, kit, Scope::kWhole);
  const UniqueFd resumed = HostB(world, kit).resume(frozen);
  frozen.commit();
  CHECK(get(resumed, IPPROTO_TCP, TCP_CORK) == 1);
  CHECK(bytes_waiting(pair.client.get()) == 0);
  send_all(resumed.get(), bytes_of("and the rest"));
  set(resumed, IPPROTO_TCP, TCP_CORK, 0);
  CHECK(receive_exactly(pair.client.get(), 25) == bytes_of("half a line, and the rest"));
}

TEST_CASE("a whole freeze that is thawed leaves the connection as it was") {
  if (cannot_run_here()) return;
  World world;
  for (const bool by_program : {true, false}) {
    CAPTURE(by_program);
    const FreezeKit kit(kit_options(by_program));
    world.route_to(world.a);
    Pair pair = connect_pair(world, world.a, Family::kIpv4);
    limit_waiting(pair.client.get());
    const Bytes in = pattern(30'000, 3), out = pattern(50'000, 4);
    send_all(pair.client.get(), in);
    wait_until("data", [&] { return bytes_waiting(pair.server.get()) == in.size(); });
    send_all(pair.server.get(), out);
    for (int i = 0; i < 2; ++i) {
      Frozen frozen = tcpmig::freeze(std::move(pair.server), {}, kit, Scope::kWhole);
      CHECK(frozen.snapshot().received == in);
      CHECK(frozen.late_bytes().empty());
      CHECK_FALSE(frozen.late_fin());
      pair.server = frozen.thaw({}, [](auto) {});
    }
    CHECK(receive_exactly(pair.server.get(), in.size()) == in);
    CHECK(receive_exactly(pair.client.get(), out.size()) == out);
    CHECK(talk(pair.client.get(), pair.server.get(), 100'000));
  }
}

TEST_CASE("resume: TIME_WAIT of an earlier connection is not in the way, a live one is") {
  if (cannot_run_here()) return;
  const bool timestamps = GENERATE(true, false);  // with them connect() passes over a TIME_WAIT
  World world;
  world.set_offer({.timestamps = timestamps});
  FreezeKit kit(kit_options(true));
  Pair pair = connect_pair(world, world.a, Family::kIpv4);
  Frozen frozen = tcpmig::freeze(std::move(pair.server), {}, kit, Scope::kWhole);
  {
    UniqueFd earlier = HostB(world, kit).resume(frozen);
    REQUIRE_THROWS_AS(HostB(world, kit).resume(frozen), std::system_error);
    REQUIRE(::shutdown(earlier.get(), SHUT_WR) == 0);
    wait_until("its FIN is acknowledged", [&] { return state_of(earlier) == BPF_TCP_FIN_WAIT2; });
    REQUIRE(::shutdown(pair.client.get(), SHUT_WR) == 0);
    wait_until("TIME_WAIT", [&] { return state_of(earlier) == BPF_TCP_CLOSE; });
  }
  const UniqueFd resumed = HostB(world, kit).resume(frozen);
  CHECK(state_of(resumed) == BPF_TCP_ESTABLISHED);
  frozen.commit();
}

TEST_CASE("resume: a snapshot that contradicts itself is refused before anything is made") {
  Snapshot snapshot;
  snapshot.local = service(Family::kIpv4);
  snapshot.peer = {tcpmig::sys::Address::parse("198.51.100.1").value(), 5'000};
  const auto refused = [](const Snapshot& one) {
    CHECK_THROWS_AS(tcpmig::repair_resume(one), std::invalid_argument);
  };
  Snapshot gap = snapshot;
  gap.snd_nxt = gap.snd_una + 1;
  refused(gap);
  Snapshot closed = snapshot;
  closed.state = TcpState::kFinWait2;
  closed.unsent = bytes_of("x");
  refused(closed);
  Snapshot families = snapshot;
  families.peer.address = tcpmig::sys::Address::parse("2001:db8::1").value();
  refused(families);
}

TEST_CASE("resume: a FIN that came to the peer behind more than a first window is not waited for") {
  if (cannot_run_here()) return;
  World world;
  FreezeKit kit(kit_options(true));
  for (const bool sack : {true, false})
    for (const auto state : {TcpState::kFinWait1, TcpState::kLastAck, TcpState::kClosing}) {
      CAPTURE(sack, to_string(state));
      world.set_offer({.sack = sack});
      world.route_to(world.a);
      Pair pair = connect_pair(world, world.a, Family::kIpv4);
      limit_waiting(pair.client.get());
      REQUIRE(talk(pair.client.get(), pair.server.get(), 1'000'000));  // the window grows
      if (state == TcpState::kLastAck) {
        REQUIRE(::shutdown(pair.client.get(), SHUT_WR) == 0);
        wait_until("the client's FIN", [&] { return state_of(pair.server) == BPF_TCP_CLOSE_WAIT; });
      }
      auto deaf = std::make_optional<tcpmig::conn::SocketLock>(
          state == TcpState::kClosing ? pair.client.get() : pair.server.get(), -1);
      const Bytes all = pattern(45'000);
      send_all(pair.server.get(), all);
      wait_until("all is sent", [&] { return info_of(pair.server.get()).tcpi_notsent_bytes == 0; });
      REQUIRE(::shutdown(pair.server.get(), SHUT_WR) == 0);
      if (state == TcpState::kClosing) {
        REQUIRE(::shutdown(pair.client.get(), SHUT_WR) == 0);
        wait_until("CLOSING", [&] { return state_of(pair.server) == BPF_TCP_CLOSING; });
      } else {
        wait_until("the end", [&] { return bytes_waiting(pair.client.get()) == all.size(); });
      }
      Frozen frozen = tcpmig::freeze(std::move(pair.server), {}, kit, Scope::kWhole);
      REQUIRE(frozen.snapshot().sent.size() == all.size());
      REQUIRE(frozen.snapshot().state == state);
      if (state != TcpState::kClosing) deaf->keep();  // the freeze has taken its place
      deaf.reset();
      const UniqueFd resumed = HostB(world, kit).resume(frozen);
      frozen.commit();
      CHECK(read_to_end(pair.client.get()) == all);
      const auto done = [&] {
        const std::uint8_t now = state_of(resumed);
        return now == BPF_TCP_FIN_WAIT2 || now == BPF_TCP_CLOSE || now == BPF_TCP_TIME_WAIT;
      };
      wait_until("everything is acknowledged", done);
    }
}

TEST_CASE("resume: what was not sent comes back whatever TCP_NOTSENT_LOWAT says") {
  if (cannot_run_here()) return;
  World world;
  FreezeKit kit(kit_options(true));
  Pair pair = connect_pair(world, world.a, Family::kIpv4);
  limit_waiting(pair.client.get());
  pace(pair.server);
  Bytes all = pattern(200'000);
  send_all(pair.server.get(), all);
  set(pair.server, IPPROTO_TCP, TCP_NOTSENT_LOWAT, 4'096);
  REQUIRE(info_of(pair.server.get()).tcpi_notsent_bytes > 100'000);
  Frozen frozen = tcpmig::freeze(std::move(pair.server), {}, kit, Scope::kWhole);
  CHECK(frozen.snapshot().unsent.size() > 100'000);
  const UniqueFd resumed = HostB(world, kit).resume(frozen);
  frozen.commit();
  CHECK(get(resumed, IPPROTO_TCP, TCP_NOTSENT_LOWAT) == 4'096);
  CHECK(receive_exactly(pair.client.get(), all.size()) == all);
}
