// SPDX-License-Identifier: MIT
#include <cstdint>
#include <random>
#include <set>

#include "bpf/lib_host.hpp"
#include "catch.hpp"

namespace abi = tcpmig::abi;

namespace {

/// What the window is to be: every number that was accepted is remembered for ever.
class Model {
 public:
  bool accept(std::uint64_t number) {
    if (number <= newest_ && newest_ - number >= abi::REPLAY_WINDOW) return false;
    if (!seen_.insert(number).second) return false;
    newest_ = std::max(newest_, number);
    return true;
  }

 private:
  std::uint64_t newest_ = 0;
  std::set<std::uint64_t> seen_;
};

}  // namespace

TEST_CASE("replay window: the edges") {
  abi::replay_bits window{};
  const std::uint64_t start = 1000ULL << 32;
  CHECK(abi::replay_accept(&window, start));
  CHECK_FALSE(abi::replay_accept(&window, start));
  CHECK(abi::replay_accept(&window, start - 511));
  CHECK_FALSE(abi::replay_accept(&window, start - 511));
  CHECK_FALSE(abi::replay_accept(&window, start - 512));
  CHECK(abi::replay_accept(&window, start + 600));
  CHECK_FALSE(abi::replay_accept(&window, start));
  CHECK(abi::replay_accept(&window, start + 599));
  CHECK(abi::replay_accept(&window, start + 600 - 511));
}

TEST_CASE("replay window: a jump of any length forgets nothing that it should know") {
  for (std::uint64_t jump = 1; jump < 3000; jump++) {
    abi::replay_bits window{};
    for (std::uint64_t i = 0; i < 1024; i++) abi::replay_accept(&window, 5000 + i);
    const std::uint64_t newest = 5000 + 1023 + jump;
    INFO("jump " << jump);
    REQUIRE(abi::replay_accept(&window, newest));
    for (std::uint64_t back = 0; back < 1100; back++) {
      const std::uint64_t number = newest - back;
      const bool expected = back < 512 && back != 0 && number > 5000 + 1023;
      if (abi::replay_accept(&window, number) != expected) FAIL("number newest - " << back);
    }
  }
}

TEST_CASE("replay window: against the model") {
  std::mt19937_64 random(42);
  for (int round = 0; round < 200; round++) {
    abi::replay_bits window{};
    Model model;
    std::uint64_t base = random() >> 20;
    for (int i = 0; i < 2000; i++) {
      base += random() % 4 == 0 ? random() % (round % 10 == 0 ? 2000 : 8) : 0;
      const std::uint64_t number = base - std::min<std::uint64_t>(base, random() % 700);
      INFO("round " << round << ", step " << i << ", number " << number);
      REQUIRE(abi::replay_accept(&window, number) == model.accept(number));
    }
  }
}
