// SPDX-License-Identifier: MIT
// Connections that an agent restores and gives to a program: what happens when either end stops in the middle.
#include <arpa/inet.h>
#include <linux/sockios.h>
#include <linux/tcp.h>
#include <netinet/in.h>
#include <poll.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#include <fstream>
#include <thread>

#include "catch.hpp"
#include "control/whole.hpp"
#include "handover/handover.h"
#include "leaving.hpp"
#include "sys/netlink.hpp"

using namespace agent_test;
using namespace tcpmig;

namespace {

bool is_in_repair(const UniqueFd& fd) { return number_of(fd, IPPROTO_TCP, TCP_REPAIR) != 0; }

void set_tun(const World& world, bool up) {
  const auto inside = world.server();
  sys::Netlink().set_link("tcpmig0", up);
}

}  // namespace

TEST_CASE("agent: killed when it has just given a connection life, it leaves no hole in it",
          "[agent]") {
  if (cannot_hand_over_here()) return;
  const Endpoint client = client4(6700);
  const auto queued = [](const UniqueFd& fd) {
    int bytes = 0;
    REQUIRE(::ioctl(fd.get(), SIOCOUTQ, &bytes) == 0);
    return bytes;
  };
  int given = 0;
  for (int i = 0; i < 20 && given < 3; ++i) {
    World world({}, true);
    world.start();
    const UniqueFd server = listen_for_handoff(world);
    const pid_t agent = pid_of(world);
    const Snapshot snapshot = in_the_middle(client, 7'000'000);
    send_whole(world, transfer_of(client, 1000, 81), snapshot, control::encode_whole(snapshot, {}));
    const UniqueFd channel = sys_test::accepted_socket(server);
    REQUIRE(channel);
    const UniqueFd offered = peeked_descriptor(channel);
    REQUIRE(offered);
    std::optional<TakenConnection> taken;
    std::thread program([&] { taken = take_any_connection(channel.get()); });
    while (is_in_repair(offered)) continue;
    stop(agent);  // some steps later
    REQUIRE(world.stop(SIGKILL) == 128 + SIGKILL);
    program.join();
    if (!taken) continue;
    ++given;
    CHECK(queued(taken->fd) == 7'002'000);
  }
  CHECK(given > 0);
}

TEST_CASE("agent: what was not sent, and the end, come from the program that takes it", "[agent]") {
  if (cannot_hand_over_here()) return;
  World world({}, true);
  world.start();
  const UniqueFd server = listen_for_handoff(world);
  std::uint32_t generation = 1000;
  for (const Endpoint& client : {client4(6706), client6(6706)})
    for (const TcpState state : {TcpState::kFinWait1, TcpState::kLastAck, TcpState::kClosing}) {
      Snapshot snapshot = in_the_middle(client);
      snapshot.state = state;
      snapshot.settings.emplace().send_buffer = 100'000;
      snapshot.settings->send_buffer_fixed = true;
      send_whole(world, transfer_of(client, generation++, 81), snapshot,
                 control::encode_whole(snapshot, {}));
      const UniqueFd channel = sys_test::accepted_socket(server);
      REQUIRE(channel);
      world.sent();
      auto taken = take_any_connection(channel.get());
      REQUIRE(taken);
      CHECK(is_resumed(world.answer()));
      CHECK(number_of(taken->fd, SOL_SOCKET, SO_SNDBUF) == 100'000);
      const std::uint32_t end = snapshot.snd_nxt.value + 500;
      CHECK(sys_test::holds_within(5s, [&] {
        for (const Sent& segment : world.sent())
          if ((segment.flags & kFin) != 0 &&
              segment.seq + static_cast<std::uint32_t>(segment.data.size()) == end)
            return true;
        return false;
      }));
      reset(std::move(taken->fd));
    }
}

TEST_CASE("agent: a program that has waited too long gets nothing, and its client no end of it",
          "[agent]") {
  if (cannot_hand_over_here()) return;
  World world("[timeouts]\ntransfer = \"10s\"\n", true);
  world.start();
  const UniqueFd server = listen_for_handoff(world);
  const Endpoint client = client4(6701);
  const Snapshot snapshot = in_the_middle(client);
  send_whole(world, transfer_of(client, 1000, 81), snapshot, control::encode_whole(snapshot, {}));
  UniqueFd channel = sys_test::accepted_socket(server);
  REQUIRE(channel);
  REQUIRE(peeked_descriptor(channel));
  world.sent();
  const pid_t agent = pid_of(world);
  stop(agent);
  CHECK_FALSE(take_any_connection(channel.get()));  // two seconds
  REQUIRE(::kill(agent, SIGCONT) == 0);
  CHECK(is_refused(world.answer(), abi::REASON_NOT_TAKEN));
  CHECK(world.sent().empty());
}

TEST_CASE("agent: what the kernel refuses before anything can have been said is refused in silence",
          "[agent]") {
  if (cannot_hand_over_here()) return;
  World world("[timeouts]\ntransfer = \"200ms\"\n", true);
  world.start();
  const UniqueFd server = listen_for_handoff(world);
  const Endpoint client = client4(6702);
  Snapshot snapshot = in_the_middle(client);
  snapshot.window = RepairWindow{.snd_wl1 = snapshot.rcv_nxt.value,
                                 .snd_wnd = 64'000,
                                 .max_window = 1,  // that no window can be
                                 .rcv_wnd = 64'000,
                                 .rcv_wup = snapshot.rcv_nxt.value};
  send_whole(world, transfer_of(client, 1000, 81), snapshot, control::encode_whole(snapshot, {}));
  const UniqueFd channel = sys_test::accepted_socket(server);
  REQUIRE(channel);
  UniqueFd offered = peeked_descriptor(channel);
  REQUIRE(offered);
  world.sent();
  CHECK_FALSE(take_any_connection(channel.get()));
  CHECK(is_refused(world.answer(), abi::REASON_KERNEL_REFUSED));
  // still locked: who takes it back must find that nobody has heard of us
  world.send_segment(client, snapshot.rcv_nxt.value, snapshot.snd_una.value, kAck | kPsh, "x", 81);
  CHECK(sys_test::holds_within(900ms, [&] { return drops_of(offered) > 0; }));
  offered.reset();  // before its timer would repeat what was sent, or the agent's census finds it
  std::this_thread::sleep_for(1s);
  CHECK((world.sent().empty() || world.counter("late_children_ended") > 0));
}

TEST_CASE("agent: a connection that failed half alive has an end in time", "[agent]") {
  if (cannot_hand_over_here()) return;
  World world("[timeouts]\ntransfer = \"500ms\"\n", true);
  world.start();
  const UniqueFd server = listen_for_handoff(world);
  for (const Endpoint& client : {client4(6703), client6(6703)}) {
    Snapshot snapshot = in_the_middle(client);
    snapshot.state = TcpState::kCloseWait;  // the kernel is told by a packet
    send_whole(world, transfer_of(client, 1000, 81), snapshot, control::encode_whole(snapshot, {}));
    const UniqueFd channel = sys_test::accepted_socket(server);
    REQUIRE(channel);
    set_tun(world, false);
    CHECK_FALSE(take_any_connection(channel.get()));
    CHECK(is_refused(world.answer(), abi::REASON_KERNEL_REFUSED));
    set_tun(world, true);
    // who had it before may take it back: so that comes later, and the switch lets it through only where it has not been taken back
    CHECK(sys_test::holds_within(5s, [&] {
      for (const Sent& segment : world.sent())
        if ((segment.flags & kRst) != 0 && segment.to == client) return true;
      return false;
    }));
  }
}

TEST_CASE("agent: what has come for a connection that its program does not take goes back",
          "[agent]") {
  if (cannot_hand_over_here()) return;
  World world({}, true);
  world.start();
  const UniqueFd server = listen_for_handoff(world);
  for (const Endpoint& client : {client4(6704), client6(6704)}) {
    const Snapshot snapshot = in_the_middle(client);
    send_whole(world, transfer_of(client, 1000, 81), snapshot, control::encode_whole(snapshot, {}));
    UniqueFd channel = sys_test::accepted_socket(server);
    REQUIRE(channel);
    UniqueFd offered = peeked_descriptor(channel);
    REQUIRE(offered);
    world.send_segment(client, snapshot.rcv_nxt.value, snapshot.snd_una.value, kAck | kPsh, "more",
                       81);
    REQUIRE(sys_test::holds_within(5s, [&] { return drops_of(offered) == 1; }));
    offered.reset();
    channel.reset();
    CHECK(is_refused(world.answer(), abi::REASON_NOT_TAKEN));
    const auto back = world.answer();
    REQUIRE(back);
    CHECK(back->header.type == abi::WIRE_SEGMENT);
    CHECK(text_of(back->payload).ends_with("more"));
  }
  CHECK(world.counter("handed_back") == 2);
  CHECK(world.counter("captures_dropped") == 0);
  CHECK(world.status()->at("handovers").at("locked") == 0);
}

TEST_CASE("agent: what is offered in vain does not use up the room of what is captured",
          "[agent]") {
  if (cannot_hand_over_here()) return;
  World world("[timeouts]\ntransfer = \"20s\"\n", true);
  world.start();
  const UniqueFd server = listen_for_handoff(world);
  const Endpoint client = client4(6705);
  const Snapshot snapshot = snapshot_of(client, pattern(100));
  world.transfer(transfer_of(client, 1000, 81), snapshot);
  const UniqueFd channel = sys_test::accepted_socket(server);
  REQUIRE(channel);
  const UniqueFd offered = peeked_descriptor(channel);
  REQUIRE(offered);
  // more than the ring of 4 MB: nobody has taken anything yet, and what is too much is counted
  const std::string text(1'300, 'x');
  for (std::uint32_t i = 1; i <= 4'000; ++i) {
    world.send_segment(client, snapshot.rcv_nxt.value, snapshot.snd_nxt.value, kAck, text, 81);
    if (i % 100 != 0) continue;
    REQUIRE(sys_test::holds_within(5s, [&] { return drops_of(offered) == i; }));
    REQUIRE(world.reaches("captures_dropped", i > 200 ? i - 200 : 0));
  }
  CHECK(world.counter("captures_lost") == 0);
  // an agent that stands still takes nothing
  const pid_t agent = pid_of(world);
  stop(agent);
  for (std::uint32_t i = 0; i < 4'000; ++i) {
    world.send_segment(client, snapshot.rcv_nxt.value, snapshot.snd_nxt.value, kAck, text, 81);
    if (i % 100 == 0) sys_test::holds_within(5s, [&] { return drops_of(offered) >= 4'000 + i; });
  }
  REQUIRE(::kill(agent, SIGCONT) == 0);
  CHECK(world.reaches("captures_lost", 1));
}

TEST_CASE("agent: more than it can hold for programs that take their time is refused", "[agent]") {
  if (cannot_hand_over_here()) return;
  World world("[timeouts]\ntransfer = \"100s\"\ntombstone = \"200s\"\n", true);
  world.start();
  const UniqueFd server = listen_for_handoff(world);
  std::vector<UniqueFd> offers;
  bool refused = false;
  for (std::uint16_t i = 0; i < 48 && !refused; ++i) {  // 7 MB each
    const Endpoint client = client4(static_cast<std::uint16_t>(6'800 + i));
    const Snapshot snapshot = in_the_middle(client, 7'000'000);
    const Bytes payload = control::encode_whole(snapshot, {});
    send_whole(world, transfer_of(client, 1000, 81), snapshot, payload);
    pollfd state{server.get(), POLLIN, 0};
    while (::poll(&state, 1, 20) == 0 && !refused) {
      const auto answer = world.answer(20ms);
      if (!answer) continue;
      if (answer->header.type == abi::WIRE_MISSING) {
        const auto parts =
            control::whole_messages(transfer_of(client, 1000, 81), snapshot, payload);
        for (std::size_t k = 0; k + 1 < answer->payload.size(); k += 2)
          world.send(parts.at(std::to_integer<std::size_t>(answer->payload[k]) << 8U |
                              std::to_integer<std::size_t>(answer->payload[k + 1])));
        continue;
      }
      CAPTURE(i, int{answer->header.type}, int{answer->header.reason},
              ntohl(answer->header.detail));
      REQUIRE(is_refused(answer, abi::REASON_BACKLOG_FULL));
      refused = true;
    }
    if (!refused) offers.push_back(sys_test::accepted_socket(server));
  }
  CHECK(refused);
  CHECK(offers.size() >= 16);
  // room again, as soon as they are decided
  offers.clear();
  const Endpoint client = client4(6899);
  const Snapshot snapshot = in_the_middle(client);
  REQUIRE(sys_test::holds_within(
      5s, [&] { return world.status()->at("handovers").at("waiting") == 0; }));
  send_whole(world, transfer_of(client, 1000, 81), snapshot, control::encode_whole(snapshot, {}));
  const UniqueFd channel = sys_test::accepted_socket(server);
  REQUIRE(channel);
  CHECK(take_any_connection(channel.get()));
}
