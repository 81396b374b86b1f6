// SPDX-License-Identifier: MIT
#include "leaving.hpp"

#include <arpa/inet.h>
#include <linux/sock_diag.h>
#include <signal.h>
#include <sys/un.h>

#include <array>
#include <cstring>
#include <fstream>

#include "catch.hpp"
#include "handover/handover.h"

using namespace tcpmig;

namespace agent_test {
namespace {

sockaddr_un address_of(const std::string& path) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  path.copy(address.sun_path, sizeof address.sun_path - 1);
  return address;
}

}  // namespace

UniqueFd listen_for_handoff(const World& world) {
  const sockaddr_un address = address_of((world.directory() / "handoff").string());
  UniqueFd server(::socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0));
  REQUIRE(::bind(server.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0);
  REQUIRE(::listen(server.get(), 4) == 0);
  return server;
}

void send_whole(World& world, const control::Transfer& transfer, const Snapshot& snapshot,
                const Bytes& payload) {
  for (const control::Outgoing& message : control::whole_messages(transfer, snapshot, payload))
    world.send(message);
}

Snapshot in_the_middle(const Endpoint& client, std::size_t unsent) {
  Snapshot snapshot = snapshot_of(client, pattern(3'000));
  snapshot.local = World::vpa(client, 81);
  snapshot.sent = pattern(2'000);
  snapshot.snd_nxt = snapshot.snd_una + 2'000;
  snapshot.unsent = pattern(unsent);
  return snapshot;
}

UniqueFd peeked_descriptor(const UniqueFd& channel) {
  char text[256];
  alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int))] = {};
  iovec piece{text, sizeof text};
  msghdr message{};
  message.msg_iov = &piece;
  message.msg_iovlen = 1;
  message.msg_control = control;
  message.msg_controllen = sizeof control;
  if (!sys_test::holds_within(5s, [&] {
        return ::recvmsg(channel.get(), &message, MSG_PEEK | MSG_DONTWAIT | MSG_CMSG_CLOEXEC) > 0;
      }))
    return {};
  const cmsghdr* head = CMSG_FIRSTHDR(&message);
  int fd = -1;
  if (head != nullptr) std::memcpy(&fd, CMSG_DATA(head), sizeof fd);
  return UniqueFd(fd);
}

std::uint32_t drops_of(const UniqueFd& fd) {
  std::array<std::uint32_t, SK_MEMINFO_VARS> memory{};
  socklen_t length = sizeof memory;
  REQUIRE(::getsockopt(fd.get(), SOL_SOCKET, SO_MEMINFO, memory.data(), &length) == 0);
  return memory[SK_MEMINFO_DROPS];
}

UniqueFd connected_to(const std::string& agent) {
  const sockaddr_un address = address_of(agent);
  UniqueFd channel(::socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0));
  REQUIRE(::connect(channel.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) ==
          0);
  return channel;
}

UniqueFd asked(const std::string& agent, char verb, const std::string& text,
               std::span<const int> descriptors) {
  UniqueFd channel = connected_to(agent);
  const std::string message = std::string("tcpmig") + char{HANDOVER_VERSION} + verb + text;
  iovec part{const_cast<char*>(message.data()), message.size()};
  Bytes control(CMSG_SPACE(descriptors.size_bytes()));
  msghdr frame{};
  frame.msg_iov = &part;
  frame.msg_iovlen = 1;
  frame.msg_control = control.data();
  frame.msg_controllen = control.size();
  cmsghdr* rights = CMSG_FIRSTHDR(&frame);
  rights->cmsg_level = SOL_SOCKET;
  rights->cmsg_type = SCM_RIGHTS;
  rights->cmsg_len = CMSG_LEN(descriptors.size_bytes());
  std::memcpy(CMSG_DATA(rights), descriptors.data(), descriptors.size_bytes());
  REQUIRE(::sendmsg(channel.get(), &frame, 0) == static_cast<ssize_t>(message.size()));
  return channel;
}

Lingering::Lingering(const World& world) {
  const auto inside = world.server();
  const UniqueFd listener =
      sys_test::bound_socket(SOCK_STREAM, {sys_test::address("127.0.0.1"), 0});
  fd = sys_test::connected_socket(sys_test::name_of(listener));
  reader = sys_test::accepted_socket(listener);
  const Bytes chunk = pattern(65'536);
  while (::send(fd.get(), chunk.data(), chunk.size(), MSG_DONTWAIT) > 0) continue;
  const linger seconds{1, 20};
  REQUIRE(::setsockopt(fd.get(), SOL_SOCKET, SO_LINGER, &seconds, sizeof seconds) == 0);
}

bool is_awake(const World& world) {
  auto status = std::async(std::launch::async, [&] { return world.status().has_value(); });
  const bool soon = status.wait_for(std::chrono::seconds(5)) == std::future_status::ready;
  return status.get() && soon;
}

pid_t pid_of(const World& world) { return world.status()->at("pid").get<pid_t>(); }

/// SIGSTOP is still on its way when kill() returns.
void stop(pid_t process) {
  REQUIRE(::kill(process, SIGSTOP) == 0);
  REQUIRE(sys_test::holds_within(5s, [&] {
    std::ifstream file("/proc/" + std::to_string(process) + "/stat");
    std::string text;
    std::getline(file, text);
    return text.find(") T ") != std::string::npos;
  }));
}

int number_of(const UniqueFd& fd, int level, int name) {
  int value = -1;
  socklen_t length = sizeof value;
  ::getsockopt(fd.get(), level, name, &value, &length);
  return value;
}

Told told(const UniqueFd& channel) {
  if (!sys_test::readable_within(channel.get(), 5s)) return {};
  const auto parcel = conn::receive_parcel(channel.get());
  handover_verdict verdict{};
  if (!parcel || parcel->bytes.size() < sizeof verdict) return {};
  std::memcpy(&verdict, parcel->bytes.data(), sizeof verdict);
  return {verdict.error, verdict.here != 0,
          std::string(reinterpret_cast<const char*>(parcel->bytes.data()) + sizeof verdict,
                      parcel->bytes.size() - sizeof verdict)};
}

Leaving::Leaving(Endpoint from, const std::string& transfer, const std::string& extra)
    : world("[timeouts]\ntransfer = \"" + transfer + "\"\n" + extra, true),
      client(from),
      other_server(control::Secret::load(world.directory() / "secret"), 3, 0) {
  world.start();
  world.transfer(transfer_of(client), snapshot_of(client, pattern(100)));
  connection = accepted(listener);
  REQUIRE(connection);
  REQUIRE(is_resumed(world.answer()));
  REQUIRE(read_bytes(connection, 100) == pattern(100));
}

void Leaving::leave(std::string target, Bytes blob) {
  while (world.to_switch(60ms)) continue;  // repeats of what came before
  outcome = std::async(std::launch::async,
                       [this, target, blob, fd = UniqueFd(::dup(connection.get()))]() mutable {
                         return migrate(std::move(fd), target, blob, {.agent = agent()});
                       });
}

abi::wire_header Leaving::said(abi::wire_type type, bool take_back) {
  for (;;) {
    const auto header = world.to_switch();
    REQUIRE(header);
    if (header->type == type && ((header->flags & abi::WIRE_FLAG_TAKE_BACK) != 0) == take_back)
      return *header;
  }
}

void Leaving::answer(const abi::wire_header& commit, abi::wire_type type, abi::wire_reason reason,
                     bool by_switch, std::uint32_t current, const Bytes& payload) {
  control::Outgoing message{commit, payload};
  message.header.type = type;
  message.header.flags = 0;
  message.header.target = htons(2);
  message.header.reason = static_cast<std::uint8_t>(reason);
  message.header.current_generation = htonl(current);
  message.header.detail = htonl(by_switch ? 77 : 0);
  if (by_switch) return world.send_as_switch(message);
  world.send_raw(World::sealed_by(other_server, message), commit.family != abi::FAMILY_IPV6);
}

int Leaving::taken_back() {
  answer(said(abi::WIRE_COMMIT, true), abi::WIRE_RESUMED, abi::REASON_NONE, true);
  const auto result = outcome.get();
  REQUIRE_FALSE(result);
  CHECK(result.error().fd);
  return result.error().error;
}

}  // namespace agent_test
