// SPDX-License-Identifier: MIT
// Every state, with every combination of queues, moves to another server; both ends read every byte once and in order, and
// the connection ends as it would have.
#include <linux/bpf.h>  // the TCP states
#include <linux/tcp.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include <algorithm>
#include <optional>
#include <span>

#include <tcpmig/codec.hpp>
#include <tcpmig/freeze.hpp>
#include <tcpmig/resume.hpp>

#include "catch.hpp"
#include "conn/segment.hpp"
#include "conn/socket_lock.hpp"
#include "conn_world.hpp"
#include "sys/check.hpp"
#include "sys/tun.hpp"

using namespace conn_test;
using tcpmig::FreezeKit;
using tcpmig::Frozen;
using tcpmig::Scope;
using tcpmig::Snapshot;
using tcpmig::TcpState;
using tcpmig::sys::UniqueFd;

namespace {

/// Which queues of the server hold something when it is frozen.
struct Queues {
  bool received = false;
  bool unacknowledged = false;
  bool unsent = false;
};

constexpr std::size_t kSending = 10'000;  // fits the first window

/// Host B, where connections go on.
class HostB {
 public:
  HostB(World& world, FreezeKit& kit) : world_(world), kit_(kit), tun_(tun_in(world.b)) {}
  /// First the socket, then the route, or a packet that comes between would be answered by RST; then what the lock has captured.
  UniqueFd resume(const Frozen& frozen) {
    const Snapshot& snapshot = frozen.snapshot();
    const auto decoded = tcpmig::decode(tcpmig::encode(snapshot));
    REQUIRE(decoded.has_value());
    CHECK(*decoded == snapshot);
    UniqueFd resumed;
    {
      const auto in = world_.b.enter();
      resumed = tcpmig::repair_resume(*decoded);
    }
    world_.route_to(world_.b);
    kit_.consume_captures([&](const tcpmig::CapturedSegment& segment) {
      if (segment.cookie == frozen.cookie())
        tcpmig::conn::give_packets(snapshot.peer, snapshot.local, segment.bytes,
                                   [&](auto packet) { tun_.inject(packet); });
    });
    return resumed;
  }

 private:
  World& world_;
  FreezeKit& kit_;
  tcpmig::sys::Tun tun_;
};

std::uint8_t state_of(const UniqueFd& fd) { return info_of(fd.get()).tcpi_state; }

/// The rest of the stream, to its end.
Bytes read_to_end(int fd) {
  Bytes all;
  std::byte buffer[65'536];
  for (;;) {
    const ssize_t got = tcpmig::sys::check("recv", ::recv(fd, buffer, sizeof buffer, 0));
    if (got == 0) return all;
    all.insert(all.end(), buffer, buffer + got);
  }
}

void limit_waiting(int fd) {
  const timeval limit{.tv_sec = 10, .tv_usec = 0};
  REQUIRE(::setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit) == 0);
}

/// One connection on its way: what each end has written, and what the server has to read and the client to be sent.
class Moved {
 public:
  Moved(World& world, Family family, FreezeKit& kit, const Queues& queues, TcpState state)
      : world_(world), queues_(queues), state_(state), kit_(kit) {
    world.route_to(world.a);
    pair_ = connect_pair(world, world.a, family);
    REQUIRE(talk(pair_.client.get(), pair_.server.get(), 3'000));
    limit_waiting(pair_.client.get());
    fill();
    reach_state();
  }

  /// Freezes at A, goes on at B, and checks what the snapshot says.
  UniqueFd move() {
    frozen_ = tcpmig::freeze(std::move(pair_.server), {}, kit_, Scope::kWhole);
    const Snapshot& snapshot = frozen_->snapshot();
    CHECK(snapshot.state == state_);
    CHECK(snapshot.received == to_server_);
    CHECK(snapshot.unsent.empty() == !queues_.unsent);
    CHECK(snapshot.sent.empty() == !queues_.unacknowledged);
    if (deaf_ && state_ != TcpState::kClosing) deaf_->keep();  // the freeze has taken its place
    deaf_.reset();
    UniqueFd resumed = HostB(world_, kit_).resume(*frozen_);
    limit_waiting(resumed.get());
    return resumed;
  }
  /// When nothing of the client is on its way to A any more.
  void forget() { frozen_->commit(); }

  /// Who has closed.
  [[nodiscard]] Snapshot ends() const {
    Snapshot snapshot;
    snapshot.state = state_;
    return snapshot;
  }
  [[nodiscard]] int client() const { return pair_.client.get(); }
  [[nodiscard]] const Bytes& to_server() const { return to_server_; }
  [[nodiscard]] const Bytes& to_client() const { return to_client_; }

 private:
  void fill();
  void reach_state();
  void write_out();
  /// What arrives at a socket is lost from now on.
  static tcpmig::conn::SocketLock deaf(const UniqueFd& fd) {
    return tcpmig::conn::SocketLock(fd.get(), -1);
  }

  World& world_;
  Queues queues_;
  TcpState state_;
  FreezeKit& kit_;
  Pair pair_;
  std::optional<Frozen> frozen_;
  Bytes to_server_;
  Bytes to_client_;
  std::optional<tcpmig::conn::SocketLock> deaf_;
};

/// What is written first leaves at once; what follows it waits for seconds.
void pace(const UniqueFd& fd) {
  const unsigned bytes_a_second = 1'000;
  REQUIRE(::setsockopt(fd.get(), SOL_SOCKET, SO_MAX_PACING_RATE, &bytes_a_second,
                       sizeof bytes_a_second) == 0);
}

void Moved::write_out() {
  if (queues_.unsent) pace(pair_.server);
  to_client_ = pattern(2 * kSending, 8);
  const std::span all = to_client_;
  send_all(pair_.server.get(), all.first(kSending));
  if (!queues_.unsent) to_client_.resize(kSending);
  wait_until("what is sent", [&] {
    const auto info = info_of(pair_.server.get());
    return info.tcpi_notsent_bytes == 0 && (info.tcpi_unacked > 0) == queues_.unacknowledged;
  });
  if (!queues_.unsent) return;
  send_all(pair_.server.get(), all.last(kSending));
  REQUIRE(info_of(pair_.server.get()).tcpi_notsent_bytes == kSending);
}

void Moved::fill() {
  const int server = pair_.server.get();
  if (queues_.received) {
    to_server_ = pattern(30'000, 7);
    send_all(pair_.client.get(), to_server_);
    wait_until("data", [&] { return bytes_waiting(server) == to_server_.size(); });
  }
  if (state_ == TcpState::kCloseWait || state_ == TcpState::kLastAck) {
    REQUIRE(::shutdown(pair_.client.get(), SHUT_WR) == 0);
    wait_until("the client's FIN", [&] { return state_of(pair_.server) == BPF_TCP_CLOSE_WAIT; });
  }
  wait_until("acknowledgements", [&] { return info_of(server).tcpi_unacked == 0; });
  // where both FINs are to cross, the client must not hear; else it hears, and its acknowledgements are lost
  if (state_ == TcpState::kClosing)
    deaf_.emplace(deaf(pair_.client));
  else if (queues_.unacknowledged)
    deaf_.emplace(deaf(pair_.server));
  if (queues_.unacknowledged || queues_.unsent) write_out();
}

void Moved::reach_state() {
  const int server = pair_.server.get();
  if (state_ == TcpState::kEstablished || state_ == TcpState::kCloseWait) return;
  if (!deaf_ && (state_ == TcpState::kFinWait1 || state_ == TcpState::kLastAck))
    deaf_.emplace(deaf(pair_.server));
  REQUIRE(::shutdown(server, SHUT_WR) == 0);
  if (state_ == TcpState::kFinWait2)
    wait_until("FIN_WAIT2", [&] { return state_of(pair_.server) == BPF_TCP_FIN_WAIT2; });
  if (state_ != TcpState::kClosing) return;
  REQUIRE(::shutdown(pair_.client.get(), SHUT_WR) == 0);
  wait_until("CLOSING", [&] { return state_of(pair_.server) == BPF_TCP_CLOSING; });
}

/// Both directions carry what was under way, then more, then both ends close.
void check(Moved& moved) {
  const UniqueFd server = moved.move();
  const int client = moved.client();
  Bytes to_client = moved.to_client(), to_server = moved.to_server();
  const Snapshot ends = moved.ends();
  const Bytes more = pattern(20'000, 10);
  if (!ends.closed()) {
    send_all(server.get(), more);
    to_client.insert(to_client.end(), more.begin(), more.end());
    REQUIRE(::shutdown(server.get(), SHUT_WR) == 0);
  }
  if (!ends.peer_closed()) {
    send_all(client, more);
    to_server.insert(to_server.end(), more.begin(), more.end());
    REQUIRE(::shutdown(client, SHUT_WR) == 0);
  }
  CHECK(read_to_end(client) == to_client);
  CHECK(read_to_end(server.get()) == to_server);
  moved.forget();
}

}  // namespace

TEST_CASE("resume: every state with every combination of queues") {
  if (cannot_run_here()) return;
  World world;
  FreezeKit by_program(kit_options(true));
  REQUIRE(by_program.has_dump_program());
  FreezeKit plain(kit_options(false));
  for (const auto state : {TcpState::kEstablished, TcpState::kCloseWait, TcpState::kFinWait1,
                           TcpState::kFinWait2, TcpState::kLastAck, TcpState::kClosing})
    for (const Family family : {Family::kIpv4, Family::kIpv6, Family::kMapped})
      for (unsigned mask = 0; mask < 8; ++mask) {
        const Queues queues{.received = (mask & 1) != 0,
                            .unacknowledged = (mask & 2) != 0,
                            .unsent = (mask & 4) != 0};
        // our FIN is acknowledged after everything else; a client that hears nothing acknowledges nothing
        if (state == TcpState::kFinWait2 && (queues.unacknowledged || queues.unsent)) continue;
        if (state == TcpState::kClosing && queues.unsent && !queues.unacknowledged) continue;
        CAPTURE(to_string(state), static_cast<int>(family), mask);
        Moved moved(world, family, mask % 2 != 0 ? by_program : plain, queues, state);
        check(moved);
      }
}

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
