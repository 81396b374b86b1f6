// SPDX-License-Identifier: MIT
// A process without rights moves its connection, with `tcpmig repair-helper` on both hosts; and what is when that is gone in the middle.
#include <linux/bpf.h>  // the TCP states
#include <linux/tcp.h>
#include <netinet/in.h>
#include <signal.h>
#include <sys/socket.h>

#include <optional>
#include <stdexcept>

#include <tcpmig/codec.hpp>
#include <tcpmig/freeze.hpp>
#include <tcpmig/repair_helper.hpp>
#include <tcpmig/resume.hpp>

#include "catch.hpp"
#include "conn/repair_mode.hpp"
#include "conn/socket_lock.hpp"
#include "conn_world.hpp"
#include "helper_bench.hpp"
#include "host_b.hpp"
#include "sys/check.hpp"
#include "sys/sock_diag.hpp"

using namespace conn_test;
using namespace helper_test;
using tcpmig::FreezeKit;
using tcpmig::Frozen;
using tcpmig::Scope;
using tcpmig::Snapshot;
using tcpmig::TcpState;
using tcpmig::conn::SocketLock;

namespace {

void require(bool good, const char* what) {
  if (!good) throw std::runtime_error(what);
}

constexpr std::size_t kSending = 10'000;  // fits the first window

/// What the server has not read; what it has sent, but not heard of; what waits behind that; and its FIN.
struct Loaded {
  Pair pair;
  Bytes to_server = pattern(30'000, 7), to_client = pattern(2 * kSending, 8);
};

void write_out(const UniqueFd& server, const Bytes& bytes) {
  const unsigned bytes_a_second =
      1'000;  // what is written first leaves at once; the rest waits for seconds
  REQUIRE(::setsockopt(server.get(), SOL_SOCKET, SO_MAX_PACING_RATE, &bytes_a_second,
                       sizeof bytes_a_second) == 0);
  send_all(server.get(), std::span(bytes).first(kSending));
  wait_until("what is sent", [&] {
    const auto info = info_of(server.get());
    return info.tcpi_notsent_bytes == 0 && info.tcpi_unacked > 0;
  });
  send_all(server.get(), std::span(bytes).last(kSending));
}

/// Both ends have closed: LAST_ACK, the client first; CLOSING, the server first.
Loaded loaded(World& world, Family family, TcpState state) {
  Loaded made;
  world.route_to(world.a);
  made.pair = connect_pair(world, world.a, family);
  const auto& [client, server] = made.pair;
  REQUIRE(talk(client.get(), server.get(), 3'000));
  limit_waiting(client.get());
  send_all(client.get(), made.to_server);
  wait_until("data", [&] { return bytes_waiting(server.get()) == made.to_server.size(); });
  const bool crossing = state == TcpState::kClosing;
  if (!crossing) {
    REQUIRE(::shutdown(client.get(), SHUT_WR) == 0);
    wait_until("the client's FIN", [&] { return state_of(server) == BPF_TCP_CLOSE_WAIT; });
  }
  wait_until("acknowledgements", [&] { return info_of(server.get()).tcpi_unacked == 0; });
  SocketLock deaf(crossing ? client.get() : server.get(), -1);
  write_out(server, made.to_client);
  REQUIRE(::shutdown(server.get(), SHUT_WR) == 0);
  if (crossing) {
    REQUIRE(::shutdown(client.get(), SHUT_WR) == 0);
    wait_until("CLOSING", [&] { return state_of(server) == BPF_TCP_CLOSING; });
  } else {
    deaf.keep();  // the freeze takes its place
  }
  return made;
}

/// In a process without rights: freezes, says the snapshot, and does what it is told.
void freeze_for_parent(int fd, Scope scope, const std::string& helper, int channel) {
  tcpmig::set_repair_helper(helper);
  const FreezeKit kit({});
  require(kit.may_repair() && kit.repairs_by_helper(), "the kit has found no helper");
  require(!kit.has_lock() && !kit.has_dump_program() && !kit.warnings().empty(),
          "a process without rights has BPF programs, or the kit does not say that it has none");
  Frozen frozen = tcpmig::freeze(UniqueFd(fd), {}, kit, scope);
  auto settled = tcpmig::settle(std::move(frozen), kit);
  if (!settled) throw std::runtime_error(settled.error().reason);
  send_bytes(channel, tcpmig::encode(settled->snapshot()));
  for (;;) switch (hear(channel)) {
      case 'c':
        settled->commit();
        return;
      case 't':
        try {
          const UniqueFd thawed = settled->thaw({}, {});
          require(!tcpmig::conn::is_in_repair(thawed.get()), "thawed and in repair");
          say(channel, 'y');
          hear(channel);  // until the test has seen that it lives
          return;
        } catch (const std::system_error&) {
          say(channel, 'n');
        }
        break;
      default:
        throw std::runtime_error("no such word");
    }
}

/// The child has the descriptor, and nobody else.
std::unique_ptr<Nobody> frozen_by_nobody(World& world, UniqueFd fd, Scope scope,
                                         const std::string& helper) {
  return std::make_unique<Nobody>(
      world.a, [&](int channel) { freeze_for_parent(fd.release(), scope, helper, channel); });
}

/// Its snapshot resumed in B by another process without rights.
UniqueFd resumed_by_nobody(World& world, const Snapshot& snapshot, const std::string& helper) {
  Nobody resumer(world.b, [&](int channel) {
    tcpmig::set_repair_helper(helper);
    const UniqueFd fd = tcpmig::repair_resume(snapshot);
    tcpmig::send_descriptor(channel, fd.get(), "");
  });
  auto received = tcpmig::receive_descriptor(resumer.channel());
  CHECK(resumer.wait() == 0);
  REQUIRE(received.has_value());
  world.route_to(world.b);
  return std::move(received->first);
}

}  // namespace

TEST_CASE(
    "repair helper: a user without rights moves a connection with full queues and both FINs") {
  if (cannot_run_here()) return;
  World world;
  const Scratch scratch;
  const Helper at_a(world.a, scratch.path("a.sock")), at_b(world.b, scratch.path("b.sock"));
  for (const Family family : {Family::kIpv4, Family::kIpv6, Family::kMapped})
    for (const TcpState state : {TcpState::kLastAck, TcpState::kClosing}) {
      CAPTURE(static_cast<int>(family), to_string(state));
      Loaded connection = loaded(world, family, state);
      const auto freezer =
          frozen_by_nobody(world, std::move(connection.pair.server), Scope::kWhole, at_a.path());
      connection.pair.server.reset();
      const Snapshot snapshot = tcpmig::decode(receive_bytes(freezer->channel())).value();
      CHECK(snapshot.state == state);
      CHECK(snapshot.received == connection.to_server);
      CHECK(!snapshot.sent.empty());
      CHECK(!snapshot.unsent.empty());
      const UniqueFd server = resumed_by_nobody(world, snapshot, at_b.path());
      limit_waiting(server.get());
      CHECK(read_to_end(connection.pair.client.get()) == connection.to_client);
      CHECK(read_to_end(server.get()) == connection.to_server);
      say(freezer->channel(), 'c');
      CHECK(freezer->wait() == 0);
    }
}

TEST_CASE("repair helper: both scopes, and the connection goes on") {
  if (cannot_run_here()) return;
  World world;
  const Scratch scratch;
  const Helper at_a(world.a, scratch.path("a.sock")), at_b(world.b, scratch.path("b.sock"));
  for (const Scope scope : {Scope::kRequest, Scope::kWhole}) {
    CAPTURE(static_cast<int>(scope));
    world.route_to(world.a);
    Pair pair = connect_pair(world, world.a, Family::kIpv4);
    REQUIRE(talk(pair.client.get(), pair.server.get(), 3'000));
    send_all(pair.client.get(), bytes_of("a request"));
    wait_until("data", [&] { return bytes_waiting(pair.server.get()) == 9; });
    wait_until("acknowledged", [&] { return info_of(pair.server.get()).tcpi_unacked == 0; });
    const auto freezer = frozen_by_nobody(world, std::move(pair.server), scope, at_a.path());
    const Snapshot snapshot = tcpmig::decode(receive_bytes(freezer->channel())).value();
    pair.server = resumed_by_nobody(world, snapshot, at_b.path());
    say(freezer->channel(), 'c');
    CHECK(freezer->wait() == 0);
    CHECK(receive_exactly(pair.server.get(), 9) == bytes_of("a request"));
    CHECK(talk(pair.client.get(), pair.server.get(), 500'000));
  }
}

TEST_CASE(
    "repair helper: gone in the middle, the connection can be committed, thawed when it is back") {
  if (cannot_run_here()) return;
  World world;
  const Scratch scratch;
  Helper helper(world.a, scratch.path("a.sock"));
  for (const Scope scope : {Scope::kRequest, Scope::kWhole}) {
    CAPTURE(static_cast<int>(scope));
    helper.start_again();
    Pair pair = connect_pair(world, world.a, Family::kIpv4);
    REQUIRE(talk(pair.client.get(), pair.server.get(), 3'000));
    const UniqueFd server(::dup(pair.server.get()));
    const auto thawing = frozen_by_nobody(world, std::move(pair.server), scope, helper.path());
    receive_bytes(thawing->channel());
    CHECK(tcpmig::conn::is_in_repair(server.get()));
    helper.end_by(SIGKILL);
    say(thawing->channel(), 't');
    CHECK(hear(thawing->channel()) == 'n');
    CHECK(tcpmig::conn::is_in_repair(server.get()));
    helper.start_again();
    say(thawing->channel(), 't');
    CHECK(hear(thawing->channel()) == 'y');
    CHECK(talk(pair.client.get(), server.get(), 100'000));
    say(thawing->channel(), '.');
    CHECK(thawing->wait() == 0);

    Sniffer sniffer(world.client);
    Pair other = connect_pair(world, world.a, Family::kIpv4);
    REQUIRE(talk(other.client.get(), other.server.get(), 3'000));
    const auto committing = frozen_by_nobody(world, std::move(other.server), scope, helper.path());
    receive_bytes(committing->channel());
    sniffer.take_after_marker(world);
    helper.end_by(SIGKILL);
    say(committing->channel(), 'c');
    CHECK(committing->wait() == 0);
    CHECK(sniffer.take_after_marker(world).empty());  // no FIN, no RST
  }
}

TEST_CASE("repair helper: killed and started again between two steps, nobody notices") {
  if (cannot_run_here()) return;
  World world;
  const Scratch scratch;
  Helper helper(world.a, scratch.path("a.sock"));
  Pair pair = connect_pair(world, world.a, Family::kIpv4);
  const UniqueFd server(::dup(pair.server.get()));
  const auto freezer =
      frozen_by_nobody(world, std::move(pair.server), Scope::kWhole, helper.path());
  receive_bytes(freezer->channel());
  helper.end_by(SIGKILL);
  say(freezer->channel(), 't');  // it waits for the helper
  helper.start_again();
  CHECK(hear(freezer->channel()) == 'y');
  CHECK(talk(pair.client.get(), server.get(), 100'000));
}

TEST_CASE("repair helper: what was left in TIME_WAIT by an earlier connection is ended") {
  if (cannot_run_here()) return;
  World world;
  const Scratch scratch;
  const Helper at_b(world.b, scratch.path("b.sock"));
  world.set_offer({.timestamps = false});  // with them the kernel may take the place of a TIME_WAIT
  world.route_to(world.b);
  Pair first = connect_pair(world, world.b, Family::kIpv4);
  REQUIRE(talk(first.client.get(), first.server.get(), 3'000));
  FreezeKit kit(kit_options(false));
  Frozen frozen = tcpmig::freeze(UniqueFd(::dup(first.server.get())), {}, kit, Scope::kWhole);
  const Snapshot snapshot = frozen.snapshot();
  first.server = frozen.thaw({}, {});
  REQUIRE(::shutdown(first.server.get(), SHUT_WR) == 0);
  REQUIRE(::shutdown(first.client.get(), SHUT_WR) == 0);
  first.server.reset();
  first.client.reset();
  wait_until("TIME_WAIT", [&] {
    const auto in = world.b.enter();
    tcpmig::sys::SockDiag diag;
    const auto socket = diag.find(snapshot.local, snapshot.peer);
    return socket && socket->state == BPF_TCP_TIME_WAIT;
  });
  CHECK(resumed_by_nobody(world, snapshot, at_b.path()).get() >= 0);
}
