// SPDX-License-Identifier: MIT
// A hundred thousand datagrams, none of which may do anything, at an agent's control port: to its tc program and its UDP socket.
#include <arpa/inet.h>
#include <endian.h>

#include <random>

#include "agent_steps.hpp"
#include "agent_world.hpp"
#include "catch.hpp"
#include "shared/node_maps.h"
#include "sys/bpf.hpp"

using namespace agent_test;
using namespace tcpmig;

namespace {

constexpr unsigned kDatagrams = 100'000, kChunk = 1'000;

/// Each datagram stands in exactly one of these. (What the program calls a duplicate the agent answers again.)
constexpr const char* kReasons[] = {"drop_bad_message", "drop_bad_tag", "drop_replay",
                                    "bad_datagrams",    "bad_tags",     "replays",
                                    "answered_again",   "event_lost"};

struct Seed {
  Bytes bytes;
  bool ipv4 = true;
};

/// Messages that were heard, or will never be (parts of a transfer without its end).
std::vector<Seed> seeds_of(World& world, const Endpoint& client) {
  std::vector<Seed> seeds;
  const auto say = [&](const control::Outgoing& message) {
    seeds.push_back({world.sealed(message), client.address.is_ipv4()});
    world.send_raw(seeds.back().bytes, seeds.back().ipv4);
  };
  say(control::transfer_messages(transfer_of(client), snapshot_of(client, bytes_of(kRequest)))[0]);
  const Bytes late = segment(kNext, 70'000, "x");
  say({about(client, abi::WIRE_SEGMENT, 999),
       late});  // of a generation that is not the present one
  say({about(client, abi::WIRE_ABORT, 998), {}});
  return seeds;
}

class Maker {
 public:
  Maker(World& world, std::vector<Seed> seeds) : world_(world), seeds_(std::move(seeds)) {}

  Seed next() {
    Seed seed = seeds_[random_() % seeds_.size()];
    Bytes& bytes = seed.bytes;
    switch (random_() % 6) {
      case 0:
        bytes.resize(random_() % 400);
        for (std::byte& byte : bytes) byte = static_cast<std::byte>(random_());
        return seed;
      case 1:
        for (auto bits = random_() % 4 + 1; bits > 0; --bits)
          bytes[random_() % bytes.size()] ^= static_cast<std::byte>(1U << random_() % 8);
        return seed;
      case 2:
        bytes.resize(random_() % bytes.size());
        return seed;
      case 3:
        bytes.resize(bytes.size() + 1 + random_() % 900);
        return seed;
      case 4:
        return seed;  // once more
      default:
        return {stale(bytes), seed.ipv4};
    }
  }

 private:
  /// Numbered and tagged as it should be, but its time is over.
  Bytes stale(const Bytes& bytes) {
    control::Outgoing message{};
    std::memcpy(&message.header, bytes.data(), sizeof message.header);
    message.payload = std::span(bytes).subspan(sizeof message.header);
    message.header.sequence = 0;
    if (message.header.type == abi::WIRE_SEGMENT) message.header.type = abi::WIRE_ABORT;
    message.header.generation = htonl(static_cast<std::uint32_t>(1 + random_() % 997));
    return world_.sealed(message);
  }

  World& world_;
  std::vector<Seed> seeds_;
  std::minstd_rand random_{7};
};

std::map<std::string, std::string> tombstones_of(const World& world) {
  std::map<std::string, std::string> all;
  const auto map = sys::PinDirectory(world.config.paths("s1").pins("agent")).open("tombstones");
  REQUIRE(map);
  sys::map_for_each<abi::flow_key, abi::tombstone>(
      map->get(), [&](const abi::flow_key& key, const abi::tombstone& value) {
        all.emplace(std::string(reinterpret_cast<const char*>(&key), sizeof key),
                    std::string(reinterpret_cast<const char*>(&value), sizeof value));
      });
  return all;
}

std::uint64_t counted(const World& world) {
  const auto status = world.status();
  std::uint64_t sum = 0;
  for (const char* reason : kReasons)
    for (const char* part : {"programs", "agent"})
      sum += status->at(part).value(reason, std::uint64_t{0});
  return sum;
}

}  // namespace

TEST_CASE("agent: a flood of datagrams of every wrong kind changes nothing", "[agent]") {
  if (cannot_run_here()) return;
  World world;
  const UniqueFd listener = world.listener();
  world.start();
  std::vector<Seed> seeds;
  std::vector<UniqueFd> connections;
  for (const Endpoint& client : {client4(9500), client6(9500)}) {
    for (Seed& seed : seeds_of(world, client)) seeds.push_back(std::move(seed));
    connections.push_back(accepted(listener));
    REQUIRE(connections.back());
    CHECK(text_of(read_bytes(connections.back(), kRequest.size())) == kRequest);
  }
  REQUIRE(world.reaches("confirmed", 2));
  REQUIRE(world.reaches("late_segments_dropped", 2));
  REQUIRE(world.reaches("answered_again", 2));
  const auto tombstones = tombstones_of(world);
  REQUIRE(tombstones.size() == 2);
  const std::uint64_t before = counted(world);

  Maker maker(world, seeds);
  for (unsigned sent = 0; sent < kDatagrams;) {
    for (unsigned i = 0; i < kChunk; ++i, ++sent) {
      const Seed datagram = maker.next();
      world.send_raw(datagram.bytes, datagram.ipv4);
    }
    REQUIRE(sys_test::holds_within(20s, [&] { return counted(world) - before == sent; }));
  }
  for (const char* reason : kReasons) {
    INFO(reason);
    CHECK((world.counter(reason) > 0 || reason == std::string_view("event_lost")));
  }
  CHECK(tombstones_of(world) == tombstones);
  CHECK_FALSE(accepted(listener, 0ms));
  CHECK(world.counter("opened") == 2);
  CHECK(world.status()->at("assembling") == 0);
  for (const UniqueFd& connection : connections) CHECK(read_bytes(connection, 1, 0ms).empty());
  world.send_segment(client4(9500), kNext, 70'000, kAck | kPsh, "more");
  CHECK(text_of(read_bytes(connections.front(), 4)) == "more");
  while (world.answer(0ms)) {  // what was answered again
  }
  open_one(world, listener, client4(9501));
}
