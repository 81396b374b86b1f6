// SPDX-License-Identifier: MIT
#include "agent_steps.hpp"

#include <arpa/inet.h>
#include <sys/socket.h>

#include <fstream>

#include "catch.hpp"
#include "sys/ledger.hpp"
#include "sys/sock_diag.hpp"

namespace agent_test {

using namespace tcpmig;

UniqueFd open_one(World& world, const UniqueFd& listener, const Endpoint& client,
                  std::uint32_t generation) {
  world.transfer(transfer_of(client, generation), snapshot_of(client, bytes_of(kRequest)));
  UniqueFd connection = accepted(listener);
  REQUIRE(connection);
  CHECK(is_resumed(world.answer()));
  CHECK(text_of(read_bytes(connection, kRequest.size())) == kRequest);
  return connection;
}

void reset(UniqueFd connection) {
  const linger now{1, 0};
  REQUIRE(::setsockopt(connection.get(), SOL_SOCKET, SO_LINGER, &now, sizeof now) == 0);
}

void close_into_time_wait(World& world, UniqueFd connection, const Endpoint& client) {
  world.sent();
  connection.reset();
  world.send_segment(client, kNext, 70'001, kAck | kFin);
  const auto fin_acknowledged = [&] {
    for (const Sent& segment : world.sent())
      if (segment.ack == kNext + 1) return true;
    return false;
  };
  REQUIRE(sys_test::holds_within(5s, fin_acknowledged));
}

void no_room_for_time_wait(const World& world) {
  const auto inside = world.server();
  std::ofstream("/proc/sys/net/ipv4/tcp_max_tw_buckets") << "0";
  REQUIRE(sys::read_sysctl("net.ipv4.tcp_max_tw_buckets") == "0");
}

bool has_no_socket(const World& world, const Endpoint& client) {
  const auto inside = world.server();
  return !sys::SockDiag().find(World::vpa(client), client);
}

abi::wire_header about(const Endpoint& client, std::uint8_t type, std::uint32_t generation) {
  abi::wire_header header{};
  header.type = type;
  header.target = htons(2);
  header.family = client.address.is_ipv4() ? abi::FAMILY_IPV4 : abi::FAMILY_IPV6;
  header.service = htons(5);
  header.generation = htonl(generation);
  header.client = client.address.raw();
  header.client_port = htons(client.port);
  header.parts = htons(1);
  return header;
}

Bytes segment(std::uint32_t seq, std::uint32_t ack, std::string_view data) {
  Bytes bytes(20 + data.size());
  const std::uint32_t numbers[2] = {htonl(seq), htonl(ack)};
  std::memcpy(bytes.data() + 4, numbers, sizeof numbers);
  bytes[12] = std::byte{5U << 4U};
  bytes[13] = std::byte{kAck | kPsh};
  bytes[14] = std::byte{1};
  std::memcpy(bytes.data() + 20, data.data(), data.size());
  return bytes;
}

void check_reset_repeatedly(World& world, const Endpoint& client, std::uint32_t seq) {
  std::size_t resets = 0;
  CHECK(sys_test::holds_within(5s, [&] {
    for (const Sent& sent : world.sent())
      resets += (sent.flags & kRst) != 0 && sent.to == client && sent.seq == seq;
    return resets >= 3;
  }));
}

void send_without(World& world, const std::vector<control::Outgoing>& parts, std::size_t left_out) {
  for (std::size_t i = 0; i < parts.size(); ++i)
    if (i != left_out) world.send(parts[i]);
}

}  // namespace agent_test
