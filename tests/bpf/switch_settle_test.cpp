// SPDX-License-Identifier: MIT
// The first moments of a new owner: no SACK tells the client to send again what is on its way.
#include "bpf/switch_rig.hpp"

using namespace rig;
using namespace packets;

namespace {

constexpr unsigned kGeneration = 1000;
constexpr std::uint32_t kFirst = 0xffffff00;  // wraps in the midst of what the client sends

const Counts kPasses{{"from_node", 1}}, kStays{{"drop_early_sack", 1}};

const Bytes kTimestamps = {1, 1, 8, 10, 0, 0, 0, 1, 0, 0, 0, 2};

/// A block of 100 bytes that begins there.
Bytes sack(std::uint32_t left) {
  Bytes option = {1, 1, 5, 10};
  for (const std::uint32_t edge : {left, left + 100})
    for (const int shift : {24, 16, 8, 0})
      option.push_back(static_cast<std::uint8_t>(edge >> shift & 0xff));
  return option;
}

Bytes joined(Bytes options, const Bytes& more) {
  options.insert(options.end(), more.begin(), more.end());
  return options;
}

/// The dispatcher's connection, the COMMIT, and the first word of node 2. The client sends so many bytes before the COMMIT
/// and before the first word.
void move(const World& w, std::uint32_t before, std::uint32_t between) {
  const auto client_sends = [&](std::uint32_t seq, std::uint32_t size) {
    if (size != 0)
      w.s.from_client(w.tcp_in({.seq = seq, .flags = kAck | kPsh, .payload = Bytes(size)}));
  };
  w.s.from_client(w.tcp_in({.seq = kFirst - 1, .flags = kSyn}));
  client_sends(kFirst, before);
  abi::wire_header header = transfer(w.f, abi::WIRE_COMMIT, 1, 2, kGeneration);
  header.snd_nxt = htonl(5000);
  w.s.from_node(control(w.f, header));
  client_sends(kFirst + before, between);
  CHECK(w.s.from_node(w.tcp_out(2, {.seq = 5000, .ack = kFirst, .flags = kAck})).counted ==
        Counts{{"from_node", 1}, {"spoke", 1}});
}

Counts acknowledge(const World& w, std::uint32_t ack, const Bytes& options,
                   std::uint8_t flags = kAck, std::size_t payload = 0) {
  return w.s
      .from_node(w.tcp_out(
          2,
          {.seq = 5000, .ack = ack, .flags = flags, .payload = Bytes(payload), .options = options}))
      .counted;
}

}  // namespace

TEST_CASE("settle: a SACK stays while what it misses is on its way to the new owner") {
  SWITCH_WORLD(w);
  const auto [before, between] = GENERATE(std::pair{1000U, 0U}, std::pair{600U, 400U});
  move(w, before, between);
  const std::uint32_t end = kFirst + 1000;
  const Bytes above = sack(end + 2000);
  for (const Bytes& options : {joined(kTimestamps, above), above}) {
    CHECK(acknowledge(w, end - 1, options) == kStays);
    CHECK(acknowledge(w, kFirst, options) == kStays);
    CHECK(acknowledge(w, end, options) == kPasses);  // what is missing is beyond
    CHECK(acknowledge(w, end + 1000, options) == kPasses);
    CHECK(acknowledge(w, end - 1, options, kAck | kPsh, 10) == kPasses);
    CHECK(acknowledge(w, end - 1, options, kAck | kFin) == kPasses);
  }
  const Bytes twice = sack(end - 500);  // D-SACK: nothing is missing
  CHECK(acknowledge(w, end - 450, twice) == kStays);
  CHECK(acknowledge(w, end - 400, twice) == kPasses);
  CHECK(acknowledge(w, end - 400, joined(kTimestamps, twice)) == kPasses);
  Bytes twice_and_gap = joined(twice, {0, 0, 9, 0, 0, 0, 9, 9});
  twice_and_gap[3] = 18;
  CHECK(acknowledge(w, end - 400, twice_and_gap) == kStays);
  CHECK(acknowledge(w, end - 1, kTimestamps) == kPasses);
  CHECK(acknowledge(w, end - 1, {}) == kPasses);
  // what the client sends after the first word is its business and the owner's
  w.s.from_client(w.tcp_in({.seq = end, .flags = kAck, .payload = Bytes(500)}));
  CHECK(acknowledge(w, end + 100, joined(kTimestamps, sack(kFirst + 5000))) == kPasses);
}

TEST_CASE("settle: after a client's timeout nothing stays") {
  SWITCH_WORLD(w);
  move(w, 1000, 0);
  auto flow = w.s.flow(w.f).value();
  flow.committed_ns = now_ns() - 1'100'000'000;
  w.s.set_flow(w.f, flow);
  CHECK(acknowledge(w, kFirst, joined(kTimestamps, sack(kFirst + 5000))) == kPasses);
}

TEST_CASE("settle: an owner that is only announced has nothing on its way") {
  SWITCH_WORLD(w);
  auto flow = Rig::owned(2, 1, kGeneration, true);
  flow.committed_ns = now_ns();
  w.s.set_flow(w.f, flow);
  CHECK(acknowledge(w, kFirst, joined(kTimestamps, sack(kFirst + 5000))) == kPasses);
}
