// SPDX-License-Identifier: MIT
// From heartbeats to where clients go.
#include "switch/health.hpp"

#include "catch.hpp"

using namespace tcpmig::steering;
using Set = std::set<std::uint32_t>;
namespace abi = tcpmig::abi;

namespace {

constexpr std::chrono::milliseconds kTimeout{1000};
constexpr std::uint64_t kMs = 1'000'000, kNow = 1'000'000 * kMs;

Health heard(std::uint64_t ms_ago, bool draining = false) {
  abi::node_liveness liveness{};
  liveness.heard_ns = kNow - ms_ago * kMs;
  liveness.instance = 7;
  liveness.draining = draining ? 1 : 0;
  return health_of(liveness, kNow, kTimeout);
}

DispatcherChoice choose(const std::map<std::uint32_t, Health>& all, bool grace = false) {
  return choose_dispatchers(all, grace);
}

}  // namespace

TEST_CASE("health: by the last heartbeat") {
  CHECK(health_of({}, kNow, kTimeout) == Health::kUnknown);
  CHECK(heard(0) == Health::kAlive);
  CHECK(heard(1000) == Health::kAlive);
  CHECK(heard(1001) == Health::kSilent);
  CHECK(heard(3000) == Health::kSilent);
  CHECK(heard(3001) == Health::kDead);
  CHECK(heard(0, true) == Health::kDraining);
  CHECK(heard(1001, true) == Health::kSilent);  // it has gone
  abi::node_liveness ahead{};                   // heard while we looked
  ahead.heard_ns = kNow + kMs;
  CHECK(health_of(ahead, kNow, kTimeout) == Health::kAlive);
}

TEST_CASE("health: the living get the clients, the silent no new ones, the dead none") {
  using enum Health;
  CHECK(choose({{1, kAlive}, {2, kAlive}}) == DispatcherChoice{{1, 2}, {}});
  CHECK(choose({{1, kAlive}, {2, kSilent}}) == DispatcherChoice{{1}, {}});
  CHECK(choose({{1, kAlive}, {2, kDead}, {3, kDraining}}) == DispatcherChoice{{1}, {2}});
  CHECK(choose({{1, kAlive}, {2, kDraining}}) == DispatcherChoice{{1}, {}});  // bound ones stay
}

TEST_CASE("health: one that was never heard of is not taken for dead") {
  using enum Health;
  CHECK(choose({{1, kAlive}, {2, kUnknown}}, true) == DispatcherChoice{{1, 2}, {}});
  CHECK(choose({{1, kAlive}, {2, kUnknown}}, false) == DispatcherChoice{{1}, {}});
  CHECK(choose({{1, kUnknown}, {2, kUnknown}}, false) == DispatcherChoice{{1, 2}, {}});
}

TEST_CASE("health: where none is known to live all stay as they are configured") {
  using enum Health;
  CHECK(choose({{1, kDead}}) == DispatcherChoice{{1}, {}});
  CHECK(choose({{1, kDead}, {2, kSilent}}) == DispatcherChoice{{1, 2}, {}});
  CHECK(choose({{1, kDead}, {2, kUnknown}}) == DispatcherChoice{{1, 2}, {}});
  CHECK(choose({{1, kDead}, {2, kDraining}}) == DispatcherChoice{{1}, {}});
  CHECK(choose({{1, kDraining}}) == DispatcherChoice{{1}, {}});
  CHECK(choose({}) == DispatcherChoice{});
}
