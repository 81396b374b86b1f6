// SPDX-License-Identifier: MIT
// Connections that programs give away: what disturbs it. Strangers, ends, restarts, other configurations, late packets.
#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <signal.h>
#include <sys/socket.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <sstream>
#include <thread>

#include "catch.hpp"
#include "control/transfer_messages.hpp"
#include "handover/handover.h"
#include "leaving.hpp"
#include "sys/netlink.hpp"

using namespace agent_test;
using namespace tcpmig;

namespace {

/// Where the other server hears SEGMENTs; the test has its address.
UniqueFd other_port(const World& world) {
  const auto inside = world.outside();
  sys::Netlink netlink;
  netlink.add_address(netlink.find_link("o0").value().index, sys_test::prefix("10.77.0.3/24"));
  return sys_test::bound_socket(SOCK_DGRAM, {sys_test::address("10.77.0.3"), 7420});
}

/// The next SEGMENT there that ends with this text.
std::optional<abi::wire_header> segment_with(const UniqueFd& port, const std::string& text) {
  const auto end = std::chrono::steady_clock::now() + 5s;
  while (std::chrono::steady_clock::now() < end) {
    if (!sys_test::readable_within(port.get(), 100ms)) continue;
    Bytes datagram(2'048);
    const auto got = ::recv(port.get(), datagram.data(), datagram.size(), 0);
    if (got < static_cast<ssize_t>(sizeof(abi::wire_header))) continue;
    datagram.resize(static_cast<std::size_t>(got));
    abi::wire_header header{};
    std::memcpy(&header, datagram.data(), sizeof header);
    if (header.type == abi::WIRE_SEGMENT && text_of(datagram).ends_with(text)) return header;
  }
  return {};
}

/// Lets in what the agent's lock keeps out: as a packet does that was past it when it came.
void let_in(const Leaving& leaving, const std::string& text) {
  const int unused = 0;
  REQUIRE(::setsockopt(leaving.connection.get(), SOL_SOCKET, SO_DETACH_FILTER, &unused,
                       sizeof unused) == 0);
  World& world = const_cast<World&>(leaving.world);
  world.sent();
  world.send_segment(leaving.client, 5'100, 70'000, kAck | kPsh, text);
  REQUIRE(sys_test::holds_within(5s, [&] {
    for (const Sent& segment : world.sent())
      if (segment.ack == 5'100 + text.size()) return true;
    return false;
  }));
}

/// CPU time in clock ticks.
long used_by(pid_t process) {
  std::ifstream file("/proc/" + std::to_string(process) + "/stat");
  std::string text;
  std::getline(file, text);
  std::istringstream fields(text.substr(text.rfind(')') + 2));
  std::string skipped;
  for (int i = 0; i < 11; ++i) fields >> skipped;
  long user = 0, system = 0;
  fields >> user >> system;
  return user + system;
}

bool resets_seen(World& world, const Endpoint& client) {
  return sys_test::holds_within(5s, [&] {
    for (const Sent& segment : world.sent())
      if ((segment.flags & kRst) != 0 && segment.to == client) return true;
    return false;
  });
}

void fill(const UniqueFd& connection, std::size_t bytes) {
  const int room = 32 << 20;
  REQUIRE(::setsockopt(connection.get(), SOL_SOCKET, SO_SNDBUFFORCE, &room, sizeof room) == 0);
  const Bytes all = pattern(bytes);
  REQUIRE(::send(connection.get(), all.data(), all.size(), MSG_DONTWAIT) ==
          static_cast<ssize_t>(bytes));
}

}  // namespace

TEST_CASE("agent: a flow that is being given away is not announced to another boot of the switch",
          "[agent]") {
  if (cannot_hand_over_here()) return;
  Leaving leaving(client4(9610), "5s");
  leaving.world.answer_heartbeat(leaving.world.heartbeat(), 7);
  leaving.leave();
  const abi::wire_header commit = leaving.said(abi::WIRE_COMMIT);
  leaving.world.answer_heartbeat(leaving.world.heartbeat(), 8);
  REQUIRE(leaving.world.reaches("announcements", 2));
  // repeats of the COMMIT, which the test does not answer; no word that the connection lives here
  while (const auto said = leaving.world.to_switch(600ms)) CHECK(said->type == abi::WIRE_COMMIT);
  // the switch has no entry, so it refuses all; what the other server says counts
  leaving.answer(commit, abi::WIRE_REFUSED, abi::REASON_NO_HANDOFF, false);
  const abi::wire_header back = leaving.said(abi::WIRE_COMMIT, true);
  leaving.answer(back, abi::WIRE_REFUSED, abi::REASON_NOT_ENTITLED, true);
  const abi::wire_header renewal = leaving.said(abi::WIRE_RENEW);
  CHECK(ntohl(renewal.generation) == ntohl(back.generation));
  const auto outcome = leaving.outcome.get();
  REQUIRE_FALSE(outcome);
  CHECK(outcome.error().fd);  // it goes on here
}

TEST_CASE("agent: what a stranger gives away may take long to close", "[agent]") {
  if (cannot_run_here()) return;
  Leaving leaving(client4(6610));
  World& world = leaving.world;
  const UniqueFd blob = conn::make_blob(pattern(10));
  const auto give = [&](char verb, std::vector<int> more) {
    Lingering stranger(world);
    more.insert(more.begin(), stranger.fd.get());
    const UniqueFd channel = asked(leaving.agent(), verb, "s2", more);
    stranger.fd.reset();  // the agent has the last one
    sys_test::readable_within(channel.get(), 1s);
    CHECK(is_awake(world));
    return std::move(stranger.reader);
  };
  std::vector<UniqueFd> readers;
  readers.push_back(give(HANDOVER_MIGRATE, {blob.get()}));
  readers.push_back(give(HANDOVER_RECOVER, {}));
  readers.push_back(give(HANDOVER_MIGRATE, {blob.get(), blob.get()}));
  readers.push_back(give(HANDOVER_MIGRATE, std::vector<int>(200, blob.get())));
  {  // as the blob; and one who does not wait for the answer
    Lingering stranger(world);
    const int descriptors[]{leaving.connection.get(), stranger.fd.get()};
    asked(leaving.agent(), HANDOVER_MIGRATE, "s2", descriptors);
    stranger.fd.reset();
    CHECK(is_awake(world));
    readers.push_back(std::move(stranger.reader));
  }
}

TEST_CASE("agent: a connection that comes back to a program that has ended may take long to close",
          "[agent]") {
  if (cannot_run_here()) return;
  Leaving leaving(client4(6611));
  World& world = leaving.world;
  const UniqueFd blob = conn::make_blob(pattern(10));
  const linger seconds{1, 20};
  REQUIRE(::send(leaving.connection.get(), "never acknowledged", 18, 0) == 18);
  REQUIRE(::setsockopt(leaving.connection.get(), SOL_SOCKET, SO_LINGER, &seconds, sizeof seconds) ==
          0);
  while (world.to_switch(60ms)) continue;
  const int descriptors[]{leaving.connection.get(), blob.get()};
  UniqueFd channel = asked(leaving.agent(), HANDOVER_MIGRATE, "s2", descriptors);
  const abi::wire_header commit = leaving.said(abi::WIRE_COMMIT);
  channel.reset();
  ::close(leaving.connection.release());
  leaving.answer(commit, abi::WIRE_REFUSED, abi::REASON_NOT_TAKEN, false);
  leaving.answer(leaving.said(abi::WIRE_COMMIT, true), abi::WIRE_RESUMED, abi::REASON_NONE, true);
  CHECK(is_awake(world));
  CHECK(world.reaches("migrate_returned", 1));
}

TEST_CASE("agent: what is given away is looked at before what goes along", "[agent]") {
  if (cannot_run_here()) return;
  Leaving leaving(client4(6612));
  World& world = leaving.world;
  const UniqueFd unix_socket(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  const UniqueFd no_blob(::open("/dev/null", O_RDONLY | O_CLOEXEC));
  const int nothing[]{unix_socket.get(), no_blob.get()};
  CHECK(told(asked(leaving.agent(), HANDOVER_MIGRATE, "s2", nothing)).error == EPROTOTYPE);
  const int ours[]{leaving.connection.get(), no_blob.get()};
  const Told unsealed = told(asked(leaving.agent(), HANDOVER_MIGRATE, "s2", ours));
  CHECK(unsealed.error == EINVAL);
  CHECK(unsealed.here);
  CHECK(world.counter("migrate_bad_blob") == 1);
  CHECK(world.counter("migrate_too_large") == 0);
  // a name that fills the message: the answer still fits
  const UniqueFd blob = conn::make_blob(pattern(10));
  const int both[]{leaving.connection.get(), blob.get()};
  const Told nowhere =
      told(asked(leaving.agent(), HANDOVER_MIGRATE, std::string(4'000, 's'), both));
  CHECK(nowhere.error == EADDRNOTAVAIL);
  CHECK(nowhere.here);
}

TEST_CASE("agent: a connection of a service that is no more stays", "[agent]") {
  if (cannot_run_here()) return;
  Leaving leaving(client4(6613));
  World& world = leaving.world;
  world.stop(SIGKILL);
  world.config.services.clear();
  world.start();
  leaving.leave();
  const auto outcome = leaving.outcome.get();
  REQUIRE_FALSE(outcome);
  CHECK(outcome.error().fd);
  CHECK(outcome.error().error == EADDRNOTAVAIL);
  CHECK(is_awake(world));
}

TEST_CASE("agent: a program that ends while its connection moves costs no time", "[agent]") {
  if (cannot_run_here()) return;
  Leaving leaving(client4(6614), "5s");
  World& world = leaving.world;
  const UniqueFd blob = conn::make_blob(pattern(10));
  const int descriptors[]{leaving.connection.get(), blob.get()};
  UniqueFd channel = asked(leaving.agent(), HANDOVER_MIGRATE, "s2", descriptors);
  leaving.said(abi::WIRE_COMMIT);
  channel.reset();
  const pid_t agent = pid_of(world);
  const long before = used_by(agent);
  std::this_thread::sleep_for(1s);
  CHECK(used_by(agent) - before < ::sysconf(_SC_CLK_TCK) / 2);
}

TEST_CASE("agent: more than a transfer carries, or than an agent holds, stays", "[agent]") {
  if (cannot_run_here()) return;
  Leaving leaving(client4(6615), "20s");
  World& world = leaving.world;
  fill(leaving.connection, 9'000'000);
  leaving.leave();
  const auto outcome = leaving.outcome.get();
  REQUIRE_FALSE(outcome);
  CHECK(outcome.error().fd);
  CHECK(outcome.error().error == EMSGSIZE);
  CHECK(world.counter("migrate_too_large") == 1);
  const UniqueFd blob = conn::make_blob(pattern(10));
  std::vector<UniqueFd> connections, channels;
  for (std::uint16_t i = 0; i < 24 && world.counter("migrate_busy") == 0; ++i) {
    const Endpoint client = client4(static_cast<std::uint16_t>(6'900 + i));
    world.transfer(transfer_of(client), snapshot_of(client, pattern(100)));
    connections.push_back(accepted(leaving.listener));
    REQUIRE(is_resumed(world.answer()));
    fill(connections.back(), 7'000'000);
    const int descriptors[]{connections.back().get(), blob.get()};
    channels.push_back(asked(leaving.agent(), HANDOVER_MIGRATE, "s2", descriptors));
    REQUIRE(sys_test::holds_within(5s, [&] {
      return world.status()->at("departures").at("under_way") == i + 1 ||
             world.counter("migrate_busy") == 1;
    }));
  }
  REQUIRE(world.counter("migrate_busy") == 1);
  CHECK(told(channels.back()).error == EAGAIN);
  CHECK(channels.size() <= 10);  // what is frozen counts twice: as it is, and as it goes
}

TEST_CASE("agent: what a target gives back goes to the connection that has come back", "[agent]") {
  if (cannot_run_here()) return;
  for (const Endpoint& client : {client4(6616), client6(6616)}) {
    Leaving leaving(client);
    World& world = leaving.world;
    leaving.leave();
    const abi::wire_header commit = leaving.said(abi::WIRE_COMMIT);
    leaving.answer(commit, abi::WIRE_REFUSED, abi::REASON_NOT_TAKEN, false);
    leaving.answer(commit, abi::WIRE_SEGMENT, abi::REASON_NONE, false, 0,
                   segment(5'100, 70'000, "one"));
    leaving.answer(commit, abi::WIRE_SEGMENT, abi::REASON_NONE, false, 0,
                   segment(5'103, 70'000, "two"));
    CHECK(leaving.taken_back() == ECONNREFUSED);
    CHECK(text_of(read_bytes(leaving.connection, 6)) == "onetwo");
    leaving.answer(commit, abi::WIRE_SEGMENT, abi::REASON_NONE, false, 0,
                   segment(5'106, 70'000, "three"));
    CHECK(text_of(read_bytes(leaving.connection, 5)) == "three");
    CHECK(world.counter("got_back") == 3);
    CHECK(world.counter("late_segments_dropped") == 0);
  }
}

TEST_CASE("agent: refused by a target that has already spoken, it is lost, and its program knows",
          "[agent]") {
  if (cannot_run_here()) return;
  Leaving leaving(client4(6617));
  leaving.leave();
  const abi::wire_header commit = leaving.said(abi::WIRE_COMMIT);
  leaving.answer(commit, abi::WIRE_REFUSED, abi::REASON_KERNEL_REFUSED, false);
  leaving.answer(leaving.said(abi::WIRE_COMMIT, true), abi::WIRE_REFUSED, abi::REASON_ALREADY_SPOKE,
                 true, ntohl(commit.generation));
  const auto outcome = leaving.outcome.get();
  REQUIRE_FALSE(outcome);
  CHECK(outcome.error().error == ENOTRECOVERABLE);
  CHECK_FALSE(outcome.error().fd);
  CHECK(leaving.world.counter("migrate_lost") == 1);
}

TEST_CASE("agent: late bytes of a connection that comes back at once go to it", "[agent]") {
  if (cannot_run_here()) return;
  Leaving leaving(client4(6618), "2s");
  World& world = leaving.world;
  leaving.leave();
  const abi::wire_header commit = leaving.said(abi::WIRE_COMMIT);
  let_in(leaving, "late");
  leaving.answer(commit, abi::WIRE_RESUMED, abi::REASON_NONE, false);
  CHECK(leaving.outcome.get());
  leaving.connection.reset();
  Snapshot snapshot = snapshot_of(leaving.client, pattern(100));
  snapshot.timestamps->ts_recent = 0;  // a server does not know it
  world.transfer(transfer_of(leaving.client, 1005), snapshot);
  const UniqueFd again = accepted(leaving.listener);
  REQUIRE(again);
  CHECK(read_bytes(again, 100) == pattern(100));
  CHECK(text_of(read_bytes(again, 4)) == "late");
}

TEST_CASE("agent: late bytes for a connection that has gone on are sent after it", "[agent]") {
  if (cannot_run_here()) return;
  Leaving leaving(client4(6619), "2s");
  World& world = leaving.world;
  const UniqueFd other = other_port(world);
  leaving.leave();
  leaving.answer(leaving.said(abi::WIRE_COMMIT), abi::WIRE_RESUMED, abi::REASON_NONE, false);
  CHECK(leaving.outcome.get());
  leaving.connection.reset();
  REQUIRE(sys_test::holds_within(
      5s, [&] { return world.status()->at("departures").at("under_way") == 0; }));
  abi::wire_header from_former = about(leaving.client, abi::WIRE_SEGMENT, 1000);
  from_former.flags = abi::WIRE_FLAG_CRAFTED;
  const Bytes late = segment(5'100, 70'000, "late");
  world.send({from_former, late});
  const auto sent_on = segment_with(other, "late");
  REQUIRE(sent_on);
  CHECK((sent_on->flags & abi::WIRE_FLAG_CRAFTED) != 0);
  CHECK(ntohl(sent_on->generation) == 1001);
}

TEST_CASE("agent: the next agent looks for late bytes, too", "[agent]") {
  if (cannot_run_here()) return;
  Leaving leaving(client4(6620), "2s");
  World& world = leaving.world;
  const UniqueFd other = other_port(world);
  leaving.leave();
  const abi::wire_header commit = leaving.said(abi::WIRE_COMMIT);
  REQUIRE(world.stop(SIGKILL) == 128 + SIGKILL);
  let_in(leaving, "late");
  world.start();
  REQUIRE(world.reaches("migrate_recovered", 1));
  leaving.answer(commit, abi::WIRE_RESUMED, abi::REASON_NONE, false);
  CHECK(leaving.outcome.get());
  leaving.connection.reset();
  const auto segment = segment_with(other, "late");
  REQUIRE(segment);
  CHECK((segment->flags & abi::WIRE_FLAG_CRAFTED) != 0);
}

TEST_CASE("agent: who asks again about a connection that is moving hears the end of it",
          "[agent]") {
  if (cannot_run_here()) return;
  Leaving leaving(client4(6621));
  World& world = leaving.world;
  const UniqueFd blob = conn::make_blob(pattern(10));
  while (world.to_switch(60ms)) continue;
  const int descriptors[]{leaving.connection.get(), blob.get()};
  UniqueFd channel = asked(leaving.agent(), HANDOVER_MIGRATE, "s2", descriptors);
  const abi::wire_header commit = leaving.said(abi::WIRE_COMMIT);
  const int connection[]{leaving.connection.get()};
  const Told other = told(asked(leaving.agent(), HANDOVER_RECOVER, {}, connection));
  CHECK(other.error == EALREADY);
  CHECK(other.here);
  channel.reset();  // it has lost its own
  const UniqueFd again = asked(leaving.agent(), HANDOVER_RECOVER, {}, connection);
  CHECK(is_awake(world));
  leaving.answer(commit, abi::WIRE_REFUSED, abi::REASON_NOT_TAKEN, false);
  leaving.answer(leaving.said(abi::WIRE_COMMIT, true), abi::WIRE_RESUMED, abi::REASON_NONE, true);
  const Told end = told(again);
  CHECK(end.error == ECONNREFUSED);
  CHECK(end.here);
}

TEST_CASE("agent: a frozen connection that nobody knows of has an end, here and for its client",
          "[agent]") {
  if (cannot_run_here()) return;
  Leaving leaving(client4(6622));
  World& world = leaving.world;
  leaving.leave();
  leaving.said(abi::WIRE_COMMIT);
  REQUIRE(world.stop(SIGKILL) == 128 + SIGKILL);
  world.sent();
  SECTION("what was written down is lost") {
    std::filesystem::remove_all(world.config.paths("s1").departures());
  }
  SECTION("the target is no server any more") {
    for (config::Pool& pool : world.config.pools)
      std::erase_if(pool.servers, [](const config::PoolServer& s) { return s.node == "s2"; });
  }
  world.start();
  const auto outcome = leaving.outcome.get();
  REQUIRE_FALSE(outcome);
  CHECK(outcome.error().error == ENOTRECOVERABLE);
  CHECK_FALSE(outcome.error().fd);
  CHECK(resets_seen(world, leaving.client));
}

TEST_CASE("agent: no generation is used that is not written down", "[agent]") {
  if (cannot_run_here()) return;
  Leaving leaving(client4(6623), "2s");
  World& world = leaving.world;
  leaving.leave();
  const abi::wire_header commit = leaving.said(abi::WIRE_COMMIT);
  const auto folder = world.config.paths("s1").departures();
  std::filesystem::path blocked;
  for (const auto& entry : std::filesystem::directory_iterator(folder))
    blocked = entry.path().string() + ".new";
  REQUIRE_FALSE(blocked.empty());
  std::filesystem::create_directory(blocked);
  leaving.answer(commit, abi::WIRE_REFUSED, abi::REASON_NOT_TAKEN, false);
  const auto end = std::chrono::steady_clock::now() + 500ms;
  while (std::chrono::steady_clock::now() < end) {
    const auto header = world.to_switch(50ms);
    CHECK_FALSE((header && header->type == abi::WIRE_COMMIT &&
                 (header->flags & abi::WIRE_FLAG_TAKE_BACK) != 0));
  }
  std::filesystem::remove(blocked);
  CHECK(leaving.taken_back() == ECONNREFUSED);
}

TEST_CASE("agent: what the switch says of another attempt does not tell its boot", "[agent]") {
  if (cannot_run_here()) return;
  Leaving leaving(client4(6624));
  World& world = leaving.world;
  world.answer_heartbeat(world.heartbeat(), 42);
  leaving.leave();
  const abi::wire_header commit = leaving.said(abi::WIRE_COMMIT);
  abi::wire_header older = commit;
  older.generation = htonl(ntohl(commit.generation) - 1);
  leaving.answer(older, abi::WIRE_REFUSED, abi::REASON_OTHER_BOOT, true);  // boot 77
  leaving.answer(commit, abi::WIRE_REFUSED, abi::REASON_NOT_TAKEN, false);
  const abi::wire_header back = leaving.said(abi::WIRE_COMMIT, true);
  CHECK(ntohl(back.detail) == 42);
  leaving.answer(back, abi::WIRE_RESUMED, abi::REASON_NONE, true);
  CHECK_FALSE(leaving.outcome.get());
}

TEST_CASE("agent: a program that gives up its agent closes, and its client hears of it in the end",
          "[agent]") {
  if (cannot_run_here()) return;
  Leaving leaving(client4(6625));
  World& world = leaving.world;
  while (world.to_switch(60ms)) continue;
  auto outcome = std::async(std::launch::async, [&] {
    return migrate(std::move(leaving.connection), "s2", {},
                   {.agent = leaving.agent(), .patience = 1s});
  });
  leaving.said(abi::WIRE_COMMIT);
  REQUIRE(world.stop(SIGKILL) == 128 + SIGKILL);
  const auto lost = outcome.get();
  REQUIRE_FALSE(lost);
  CHECK(lost.error().error == ENOTRECOVERABLE);
  CHECK_FALSE(lost.error().fd);
  world.sent();
  world.start();
  CHECK(resets_seen(world, leaving.client));
}
