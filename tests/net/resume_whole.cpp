// SPDX-License-Identifier: MIT
// Every state, with every combination of queues, moves to another server; both ends read every byte once and in order, and
// the connection ends as it would have.
#include <linux/bpf.h>  // the TCP states
#include <linux/tcp.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include <algorithm>
#include <functional>
#include <optional>
#include <span>

#include <tcpmig/codec.hpp>
#include <tcpmig/freeze.hpp>
#include <tcpmig/resume.hpp>

#include "catch.hpp"
#include "conn/segment.hpp"
#include "conn/socket_lock.hpp"
#include "host_b.hpp"
#include "lossy_links.hpp"
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

/// The numbers that client and server send next.
struct Numbers {
  std::uint32_t client, server;
};

/// One connection on its way: what each end has written, and what the server has to read and the client to be sent.
class Moved {
 public:
  Moved(World& world, Family family, FreezeKit& kit, const Queues& queues, TcpState state,
        std::optional<Numbers> numbers = {})
      : world_(world), queues_(queues), state_(state), kit_(kit) {
    world.route_to(world.a);
    pair_ = connect_pair(world, world.a, family);
    REQUIRE(talk(pair_.client.get(), pair_.server.get(), 3'000));
    if (numbers) renumber(*numbers);
    numbers_ = numbers;
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
    if (numbers_) {
      const auto in = static_cast<std::uint32_t>(to_server_.size());
      const auto out = static_cast<std::uint32_t>(to_client_.size() - snapshot.unsent.size());
      CHECK(snapshot.rcv_nxt.value == numbers_->client + in);
      CHECK(snapshot.snd_nxt.value == numbers_->server + out);
    }
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
  void renumber(const Numbers& numbers);
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
  std::optional<Numbers> numbers_;
  Pair pair_;
  std::optional<Frozen> frozen_;
  Bytes to_server_;
  Bytes to_client_;
  std::optional<tcpmig::conn::SocketLock> deaf_;
};

/// Talks before it is there: the kernel paces no socket that has sent less than ten segments.
void Moved::renumber(const Numbers& numbers) {
  constexpr std::uint32_t kTalk = 20'000;
  pair_ = with_sequence(world_, world_.a, std::move(pair_), numbers.client - kTalk,
                        numbers.server - kTalk);
  REQUIRE(talk(pair_.client.get(), pair_.server.get(), kTalk));
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

namespace {

/// All states with all combinations of queues.
void for_each_state(const std::function<void(TcpState, const Queues&, unsigned)>& test) {
  for (const auto state : {TcpState::kEstablished, TcpState::kCloseWait, TcpState::kFinWait1,
                           TcpState::kFinWait2, TcpState::kLastAck, TcpState::kClosing})
    for (unsigned mask = 0; mask < 8; ++mask) {
      const Queues queues{.received = (mask & 1) != 0,
                          .unacknowledged = (mask & 2) != 0,
                          .unsent = (mask & 4) != 0};
      // our FIN is acknowledged after everything else; a client that hears nothing acknowledges nothing
      if (state == TcpState::kFinWait2 && (queues.unacknowledged || queues.unsent)) continue;
      if (state == TcpState::kClosing && queues.unsent && !queues.unacknowledged) continue;
      test(state, queues, mask);
    }
}

}  // namespace

TEST_CASE("resume: every state with every combination of queues") {
  if (cannot_run_here()) return;
  World world;
  FreezeKit by_program(kit_options(true));
  REQUIRE(by_program.has_dump_program());
  FreezeKit plain(kit_options(false));
  for (const Family family : {Family::kIpv4, Family::kIpv6, Family::kMapped})
    for_each_state([&](TcpState state, const Queues& queues, unsigned mask) {
      CAPTURE(to_string(state), static_cast<int>(family), mask);
      Moved moved(world, family, mask % 2 != 0 ? by_program : plain, queues, state);
      check(moved);
    });
}

TEST_CASE("resume: sequence numbers that wrap, in every state with every combination of queues") {
  if (cannot_run_here()) return;
  World world;
  FreezeKit kit(kit_options(true));
  // in what the client sends: received (30,000), its FIN, or what it sends later; in what the server sends: sent, unsent, FIN, later
  for (const Numbers before : {Numbers{30'000, kSending}, Numbers{15'000, kSending / 2},
                               Numbers{30'001, kSending + kSending / 2}, Numbers{1, 1},
                               Numbers{0, 2 * kSending}, Numbers{40'000, 2 * kSending + 1}})
    for_each_state([&](TcpState state, const Queues& queues, unsigned mask) {
      CAPTURE(to_string(state), mask, before.client, before.server);
      Moved moved(world, Family::kIpv4, kit, queues, state,
                  Numbers{-before.client, -before.server});
      check(moved);
    });
}

TEST_CASE("resume: links that lose 3 %, every state with every combination of queues") {
  if (cannot_run_here()) return;
  FreezeKit kit(kit_options(true));
  std::uint64_t lost = 0;
  for_each_state([&](TcpState state, const Queues& queues, unsigned mask) {
    CAPTURE(to_string(state), mask);
    World world;
    Moved moved(world, mask % 2 != 0 ? Family::kIpv4 : Family::kIpv6, kit, queues, state);
    const LossyLinks lossy(world, 30);
    check(moved);
    lost += lossy.lost();
  });
  CHECK(lost > 0);
}
