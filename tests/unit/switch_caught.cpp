// SPDX-License-Identifier: MIT
// Which clients `switch run` ends, and when it is certain enough.
#include "switch/caught.hpp"

#include "catch.hpp"

using namespace tcpmig;
using namespace tcpmig::steering;
using Step = Question::Step;

namespace {

constexpr std::uint64_t kSecond = 1'000'000'000;
const config::Timeouts kTimeouts;  // transfer: 2 s

abi::flow_value given_to(std::uint64_t node, std::uint64_t committed_ns) {
  abi::flow_value flow{};
  flow.owner.is.owner = node & 0x3ffU;
  flow.owner.is.generation = 7;
  flow.committed_ns = committed_ns;
  return flow;
}

abi::flow_value closed(abi::flow_value flow) {
  flow.marks.is.generation = flow.owner.is.generation;
  flow.marks.is.closing = 1;
  return flow;
}

}  // namespace

TEST_CASE("caught: a silent owner, for four times as long as a transfer may take") {
  abi::flow_value flow = given_to(3, kSecond);
  CHECK_FALSE(is_caught(flow, kTimeouts, 9 * kSecond));
  CHECK(is_caught(flow, kTimeouts, 9 * kSecond + 1));
  flow.owner.is.spoke = 1;
  CHECK_FALSE(is_caught(flow, kTimeouts, 9 * kSecond + 1));
  CHECK_FALSE(is_caught(given_to(0, kSecond), kTimeouts, 9 * kSecond + 1));
}

TEST_CASE("caught: the owner is asked six times, half a second apart, then its client is reset") {
  const abi::flow_value flow = given_to(3, 0);
  const std::uint64_t begun = 10 * kSecond, pause = kSecond / 2;
  Question question(flow.owner, begun);
  for (std::uint64_t i = 0; i < 6; ++i) {
    CHECK(question.step(&flow, kTimeouts, begun + i * pause) == Step::kAsk);
    CHECK(question.step(&flow, kTimeouts, begun + (i + 1) * pause - 1) == Step::kWait);
  }
  CHECK(question.step(&flow, kTimeouts, begun + 6 * pause) == Step::kReap);
}

TEST_CASE(
    "caught: an owner that says that it has nothing is not asked again, one that speaks or loses "
    "the flow not either") {
  const abi::flow_value flow = given_to(3, 0);
  const std::uint64_t begun = 10 * kSecond;
  const auto step_with = [&](const abi::flow_value* now) {
    Question question(flow.owner, begun);
    CHECK(question.step(&flow, kTimeouts, begun) == Step::kAsk);
    return question.step(now, kTimeouts, begun + 1);
  };
  const abi::flow_value gone = closed(flow);
  CHECK(step_with(&gone) == Step::kReap);
  abi::flow_value other = flow;
  other.owner.is.spoke = 1;
  CHECK(step_with(&other) == Step::kOver);
  CHECK(step_with(nullptr) == Step::kOver);
  other = flow;
  other.committed_ns = begun;  // the word was new already, its time not yet
  CHECK(step_with(&other) == Step::kOver);
}

TEST_CASE("caught: who is left behind by a dead dispatcher") {
  abi::affinity_value bound{};
  bound.dispatcher = 1;
  bound.acked = 1;
  bound.last_seen_ns = 5;
  CHECK(is_left_behind(bound, 1, 6));
  CHECK_FALSE(is_left_behind(bound, 2, 6));
  CHECK_FALSE(is_left_behind(bound, 1, 5));
  bound.moved = 1;
  CHECK_FALSE(is_left_behind(bound, 1, 6));
  bound.moved = bound.acked = 0;
  CHECK_FALSE(is_left_behind(bound, 1, 6));
  const abi::flow_value flow = given_to(1, 5);  // taken back
  CHECK(is_left_behind(flow, 1, 6));
  CHECK_FALSE(is_left_behind(flow, 2, 6));
  CHECK_FALSE(is_left_behind(flow, 1, 5));
  CHECK_FALSE(is_left_behind(closed(flow), 1, 6));
}
