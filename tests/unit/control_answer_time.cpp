// SPDX-License-Identifier: MIT
// When an answer is late.
#include "control/answer_time.hpp"

#include "catch.hpp"

using tcpmig::control::AnswerTime;
using namespace std::chrono_literals;

namespace {

constexpr AnswerTime::Duration kLeast = 50ms, kMost = 500ms;

}  // namespace

TEST_CASE("answer time: nobody known yet, or a quick one: the least") {
  AnswerTime time;
  CHECK(time.patience(kLeast, kMost) == kLeast);
  for (int i = 0; i < 100; ++i) time.took(300us);
  CHECK(time.patience(kLeast, kMost) == kLeast);
}

TEST_CASE("answer time: the first says all: it and twice itself (RFC 6298, 2.2)") {
  AnswerTime time;
  time.took(60ms);
  CHECK(time.patience(kLeast, kMost) == 180ms);
}

TEST_CASE("answer time: it follows a node that becomes slow, and quick again") {
  AnswerTime time;
  for (int i = 0; i < 100; ++i) time.took(1ms);
  for (int i = 0; i < 100; ++i) time.took(150ms);
  CHECK(time.patience(kLeast, kMost) >= 150ms);
  CHECK(time.patience(kLeast, kMost) < 160ms);  // steady: no deviation is left
  for (int i = 0; i < 100; ++i) time.took(1ms);
  CHECK(time.patience(kLeast, kMost) == kLeast);
}

TEST_CASE("answer time: one whose times vary is given more, and never more than the most") {
  AnswerTime time;
  for (int i = 0; i < 100; ++i) time.took(i % 2 == 0 ? 20ms : 100ms);
  CHECK(time.patience(kLeast, kMost) > 150ms);
  for (int i = 0; i < 100; ++i) time.took(1'900ms);
  CHECK(time.patience(kLeast, kMost) == kMost);
}

TEST_CASE("answer time: a lost message now and then does not matter") {
  AnswerTime time;
  for (int i = 0; i < 1'000; ++i) time.took(i % 100 == 50 ? 50ms : 300us);
  CHECK(time.patience(kLeast, kMost) == kLeast);
}
