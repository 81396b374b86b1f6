// SPDX-License-Identifier: MIT
// The first moments of a new owner: no SACK tells the client to send again what is on its way.
#include "bpf/switch_rig.hpp"

using namespace rig;
using namespace packets;

namespace {

constexpr unsigned kGeneration = 1000;
constexpr std::uint32_t kFirst = 0xffffff00;  // wraps in the midst of what the client sends

const Counts kPasses{{"from_node", 1}}, kStays{{"drop_early_sack", 1}},
    kGoesOnWithout{{"from_node", 1}, {"hidden_sack", 1}};

const Bytes kTimestamps = {1, 1, 8, 10, 0, 0, 0, 1, 0, 0, 0, 2};

/// Blocks of 100 bytes that begin there.
Bytes sack(std::uint32_t left, unsigned blocks = 1) {
  Bytes option = {1, 1, 5, static_cast<std::uint8_t>(2 + 8 * blocks)};
  for (unsigned i = 0; i < blocks; ++i)
    for (const std::uint32_t edge : {left + 300 * i, left + 300 * i + 100})
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
enum class FirstWord { kSegment, kRenewal };

void move(const World& w, std::uint32_t before, std::uint32_t between,
          FirstWord first = FirstWord::kSegment) {
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
  if (first == FirstWord::kRenewal) {
    CHECK(w.s.from_node(control(w.f, transfer(w.f, abi::WIRE_RENEW, 2, 0, kGeneration))).counted ==
          Counts{{"renewed", 1}});
    return;
  }
  CHECK(w.s.from_node(w.tcp_out(2, {.seq = 5000, .ack = kFirst, .flags = kAck})).counted ==
        Counts{{"from_node", 1}, {"spoke", 1}});
}

Result speak(const World& w, std::uint32_t ack, const Bytes& options, std::uint8_t flags = kAck,
             std::size_t payload = 0) {
  return w.s.from_node(w.tcp_out(
      2,
      {.seq = 5000, .ack = ack, .flags = flags, .payload = Bytes(payload, 7), .options = options}));
}

Counts acknowledge(const World& w, std::uint32_t ack, const Bytes& options) {
  return speak(w, ack, options).counted;
}

}  // namespace

TEST_CASE("settle: a SACK stays while what it misses is on its way to the new owner") {
  SWITCH_WORLD(w);
  const auto [before, between] = GENERATE(std::pair{1000U, 0U}, std::pair{600U, 400U});
  move(w, before, between, GENERATE(FirstWord::kSegment, FirstWord::kRenewal));
  const std::uint32_t end = kFirst + 1000;
  const Bytes above = sack(end + 2000);
  for (const Bytes& options : {joined(kTimestamps, above), above}) {
    CHECK(acknowledge(w, end - 1, options) == kStays);
    CHECK(acknowledge(w, kFirst, options) == kStays);
    CHECK(acknowledge(w, end, options) == kPasses);  // what is missing is beyond
    CHECK(acknowledge(w, end + 1000, options) == kPasses);
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
  // what the client sends upon the first word may be held by the agent, which has not seen its connection yet
  w.s.from_client(w.tcp_in({.seq = end, .flags = kAck, .payload = Bytes(500)}));
  CHECK(acknowledge(w, end + 499, above) == kStays);
  CHECK(acknowledge(w, end + 500, above) == kPasses);
  // what it sends later is its business and the owner's
  auto flow = w.s.flow(w.f).value();
  flow.committed_ns = now_ns() - 150'000'000;
  w.s.set_flow(w.f, flow);
  w.s.from_client(w.tcp_in({.seq = end + 500, .flags = kAck, .payload = Bytes(500)}));
  CHECK(acknowledge(w, end + 499, above) == kStays);
  CHECK(acknowledge(w, end + 600, above) == kPasses);
}

TEST_CASE("settle: data and a FIN go on, without the SACK that misses what is on its way") {
  SWITCH_WORLD(w);
  move(w, 1000, 0);
  const std::uint32_t end = kFirst + 1000;
  const unsigned blocks = GENERATE(1U, 2U, 3U, 4U);
  const Bytes above = sack(end + 2000, blocks), nops(above.size(), 1);
  struct Kind {
    std::uint8_t flags;
    std::size_t payload;
  };
  for (const auto& [flags, payload] : {Kind{kAck | kPsh, 11}, Kind{kAck | kFin, 0}}) {
    INFO("flags " << int{flags} << ", blocks " << blocks);
    const auto check = [&](const Bytes& before, const Bytes& after, std::uint32_t ack,
                           const Counts& counted) {
      const Result result = speak(w, ack, before, flags, payload);
      CHECK(result.counted == counted);
      REQUIRE(result.action == Action::kRedirect);
      const View view = result.view();
      CHECK(view.options == after);
      CHECK(view.payload == Bytes(payload, 7));
      CHECK((view.flags == flags && view.ack == ack));
    };
    check(above, nops, end - 1, kGoesOnWithout);
    check(above, above, end, kPasses);
    if (blocks == 4) continue;  // no room for timestamps
    check(joined(kTimestamps, above), joined(kTimestamps, nops), end - 1, kGoesOnWithout);
    check(joined(above, kTimestamps), joined(nops, kTimestamps), end - 1, kGoesOnWithout);
    check(joined(kTimestamps, above), joined(kTimestamps, above), end, kPasses);
  }
  CHECK(speak(w, end - 1, above, kAck | kRst).counted["hidden_sack"] == 0);
}

TEST_CASE("settle: a SACK that is cut off is left as it is") {
  SWITCH_WORLD(w);
  move(w, 1000, 0);
  const std::uint32_t ack = kFirst + 999;
  const int length = GENERATE(0, 1, 2, 9, 11, 18, 26, 34, 255);
  Bytes option = sack(kFirst + 3000);
  option[3] = static_cast<std::uint8_t>(length);
  for (const Bytes& options : {option, joined(kTimestamps, option)}) {
    const Result result = speak(w, ack, options, kAck | kPsh, 11);
    CHECK(result.counted == kPasses);
    CHECK(result.view().options == options);
  }
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
