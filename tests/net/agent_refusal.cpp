// SPDX-License-Identifier: MIT
// Refusals are final, and a child that comes later than anybody waited is not left to run.
#include <arpa/inet.h>
#include <linux/filter.h>
#include <poll.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/un.h>

#include <fstream>
#include <tcpmig/resume.hpp>

#include "agent_steps.hpp"
#include "catch.hpp"

using namespace agent_test;
using namespace tcpmig;

namespace {

/// What the kernel would have made of the transfer.
UniqueFd late_child(World& world, const Snapshot& snapshot) {
  const auto inside = world.server();
  return repair_resume(snapshot, World::vpa(snapshot.peer));
}

}  // namespace

TEST_CASE("agent: a child that is born late is waited for", "[agent]") {
  if (cannot_run_here()) return;
  World world;
  const UniqueFd listener = world.listener();
  // the listener lets nothing through: the kernel takes the transfer, and no child comes
  sock_filter drop[] = {BPF_STMT(BPF_RET | BPF_K, 0)};
  const sock_fprog program{1, drop};
  REQUIRE(::setsockopt(listener.get(), SOL_SOCKET, SO_ATTACH_FILTER, &program, sizeof program) ==
          0);
  world.start();
  const Endpoint client = client4(9100);
  const Snapshot snapshot = snapshot_of(client, bytes_of(kRequest));
  SECTION("and found") {
    world.transfer(transfer_of(client), snapshot);
    REQUIRE(world.reaches("child_looked_for_again", 5));
    const UniqueFd child = late_child(world, snapshot);
    CHECK(is_resumed(world.answer()));
  }
  SECTION("but not for ever") {
    world.transfer(transfer_of(client), snapshot);
    CHECK(is_refused(world.answer(), abi::REASON_KERNEL_REFUSED));
  }
}

TEST_CASE("agent: who is looked for is not taken for the next one", "[agent]") {
  if (cannot_run_here()) return;
  World world("[timeouts]\ntransfer = \"4s\"\n");
  const UniqueFd listener = world.listener();
  sock_filter drop[] = {BPF_STMT(BPF_RET | BPF_K, 0)};
  const sock_fprog program{1, drop};
  REQUIRE(::setsockopt(listener.get(), SOL_SOCKET, SO_ATTACH_FILTER, &program, sizeof program) ==
          0);
  world.start();
  const Endpoint client = client4(9105);
  world.transfer(transfer_of(client), snapshot_of(client, bytes_of(kRequest)));
  REQUIRE(world.reaches("child_looked_for_again", 5));
  int none = 0;
  REQUIRE(::setsockopt(listener.get(), SOL_SOCKET, SO_DETACH_FILTER, &none, sizeof none) == 0);
  world.transfer(transfer_of(client, 1001), snapshot_of(client, bytes_of(kRequest)));
  const UniqueFd child = accepted(listener);
  REQUIRE(child);
  for (int i = 0; i < 2; ++i) {
    const auto answer = world.answer();
    REQUIRE(answer);
    if (ntohl(answer->header.generation) == 1001)
      CHECK(is_resumed(answer));
    else
      CHECK(is_refused(answer, abi::REASON_STALE_GENERATION));
  }
}

TEST_CASE("agent: a child of a refused transfer is ended", "[agent]") {
  if (cannot_run_here()) return;
  World world;
  const UniqueFd listener = world.listener();
  world.start();
  const Endpoint client = client4(9110);
  Snapshot snapshot = snapshot_of(client, bytes_of(kRequest));
  SECTION("refused") {
    snapshot.mss = 400;
    world.transfer(transfer_of(client), snapshot);
    REQUIRE(is_refused(world.answer(), abi::REASON_KERNEL_REFUSED));
    snapshot.mss = 1'400;
  }
  SECTION("aborted") {
    abi::wire_header message = about(client, abi::WIRE_ABORT);
    message.target_port = htons(80);
    world.send({message, {}});
    REQUIRE(world.answer()->header.type == abi::WIRE_ABORTED);
  }
  const UniqueFd child = late_child(world, snapshot);
  pollfd entry{child.get(), 0, 0};
  REQUIRE(::poll(&entry, 1, 5'000) == 1);
  CHECK((entry.revents & (POLLERR | POLLHUP)) != 0);
  CHECK(world.reaches("late_children_ended", 1));
}

TEST_CASE("agent: a refusal is final for its generation", "[agent]") {
  if (cannot_run_here()) return;
  World world("[timeouts]\ntransfer = \"500ms\"\n", true);
  const UniqueFd listener = world.listener();
  world.start();
  const Endpoint client = client4(9200);
  SECTION("no listener") {
    const Snapshot snapshot = snapshot_of(client, bytes_of(kRequest));
    world.transfer(transfer_of(client, 1000, 99), snapshot);
    REQUIRE(is_refused(world.answer(), abi::REASON_NO_LISTENER));
    const UniqueFd later = world.listener(99);
    world.transfer(transfer_of(client, 1000, 99), snapshot);
    CHECK(is_refused(world.answer(), abi::REASON_NO_LISTENER));
    CHECK_FALSE(accepted(later, 0ms));
    world.transfer(transfer_of(client, 1001, 99), snapshot);
    const UniqueFd connection = accepted(later);
    CHECK(connection);
    CHECK(is_resumed(world.answer()));
  }
  SECTION("incomplete") {
    const Snapshot snapshot = snapshot_of(client, pattern(4'096));
    const auto parts = control::transfer_messages(transfer_of(client), snapshot);
    send_without(world, parts, 0);
    CHECK(world.answer()->header.type == abi::WIRE_MISSING);
    REQUIRE(is_refused(world.answer(), abi::REASON_INCOMPLETE));
    for (const control::Outgoing& part : parts) world.send(part);
    CHECK(is_refused(world.answer(), abi::REASON_INCOMPLETE));
    CHECK_FALSE(accepted(listener, 0ms));
    world.transfer(transfer_of(client, 1001), snapshot);
    const UniqueFd connection = accepted(listener);
    CHECK(connection);
    CHECK(is_resumed(world.answer()));
  }
  SECTION("nobody takes the descriptor") {
    const Snapshot snapshot = snapshot_of(client, bytes_of(kRequest));
    world.transfer(transfer_of(client, 1000, 81), snapshot);
    REQUIRE(is_refused(world.answer(), abi::REASON_NO_LISTENER));
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    (world.directory() / "handoff").string().copy(address.sun_path, sizeof address.sun_path - 1);
    const UniqueFd server(::socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0));
    REQUIRE(::bind(server.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0);
    REQUIRE(::listen(server.get(), 4) == 0);
    world.transfer(transfer_of(client, 1000, 81), snapshot);
    CHECK(is_refused(world.answer(), abi::REASON_NO_LISTENER));
    world.transfer(transfer_of(client, 1001, 81), snapshot);
    const UniqueFd agent = sys_test::accepted_socket(server);
    CHECK(take_connection(agent.get()));
    CHECK(is_resumed(world.answer()));
    // it is there, and does not take it
    world.transfer(transfer_of(client4(9299), 1000, 81), snapshot_of(client4(9299), pattern(9)));
    CHECK(is_refused(world.answer(), abi::REASON_NOT_TAKEN));
  }
}

TEST_CASE("agent: what goes wrong with one message does not lose the next", "[agent]") {
  if (cannot_run_here()) return;
  World world;
  const UniqueFd listener = world.listener();
  world.start();
  const Endpoint client = client4(9220), other = client4(9221);
  const auto set_tun = [&](bool up) {
    const auto inside = world.server();
    sys::Netlink().set_link("tcpmig0", up);
  };
  const pid_t agent = world.status()->at("pid").get<pid_t>();
  set_tun(false);  // writing to it fails
  REQUIRE(::kill(agent, SIGSTOP) == 0);
  world.transfer(transfer_of(client), snapshot_of(client, pattern(4'000)));
  world.send({about(other, abi::WIRE_ABORT), {}});
  REQUIRE(::kill(agent, SIGCONT) == 0);
  CHECK(is_refused(world.answer(), abi::REASON_KERNEL_REFUSED));
  const auto answer = world.answer();
  REQUIRE(answer);
  CHECK(answer->header.type == abi::WIRE_ABORTED);
  set_tun(true);
  world.transfer(transfer_of(client, 1001), snapshot_of(client, pattern(4'000)));
  const UniqueFd connection = accepted(listener);
  REQUIRE(connection);
  CHECK(is_resumed(world.answer()));
}

TEST_CASE("agent: without SYN cookies nothing is resumed, and nothing reset", "[agent]") {
  if (cannot_run_here()) return;
  World world("[agent]\nresume = \"kernel\"\n");
  const UniqueFd listener = world.listener();
  const auto set_syncookies = [&](int value) {
    const auto inside = world.server();
    std::ofstream("/proc/sys/net/ipv4/tcp_syncookies") << value << std::flush;
  };
  world.start();
  CHECK(world.status()->at("kfunc") == true);
  set_syncookies(0);
  REQUIRE(sys_test::holds_within(5s, [&] { return world.status()->at("kfunc") == false; }));
  std::uint16_t port = 9210;
  for (const std::size_t length : {100, 4'000}) {
    const Endpoint client = client4(++port);
    const Snapshot snapshot = snapshot_of(client, pattern(length));
    world.transfer(transfer_of(client), snapshot);
    CHECK(is_refused(world.answer(), abi::REASON_NO_KFUNC));
    CHECK_FALSE(accepted(listener, 0ms));
  }
  set_syncookies(1);
  REQUIRE(sys_test::holds_within(5s, [&] { return world.status()->at("kfunc") == true; }));
  open_one(world, listener, client4(9211), 1001);
  CHECK(world.resets() == 0);
}
