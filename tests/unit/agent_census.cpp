// SPDX-License-Identifier: MIT
#include "agent/census.hpp"

#include <map>
#include <stdexcept>

#include "catch.hpp"

using tcpmig::abi::flow_key;
using tcpmig::agent::Census;
using tcpmig::agent::Clock;
using tcpmig::agent::TimePoint;
using namespace std::chrono_literals;
using std::chrono::milliseconds;

namespace {

flow_key flow(std::uint16_t port) {
  flow_key key{};
  key.client_port = port;
  return key;
}

/// Runs it as the agent's loop does; counts the looks at each flow.
class World {
 public:
  Census census;
  std::map<std::uint16_t, int> looks;

  void add(std::uint16_t port, milliseconds first = 100ms) {
    census.add(flow(port), 1, now, now + first);
  }
  void pass(milliseconds time, const Census::Look& look) {
    const TimePoint end = now + time;
    for (int i = 0; i < 1'000'000 && census.due() <= end; ++i) {
      now = std::max(now, census.due());
      census.run(now, [&](const Census::Subject& subject, TimePoint when) {
        ++looks[subject.flow.client_port];
        return look(subject, when);
      });
    }
    now = end;
  }

  TimePoint now = Clock::now() + 1h;  // ahead of the clock: a slice seems to take no time
};

std::optional<milliseconds> eighth(const Census::Subject& subject, TimePoint now) {
  const auto age = std::chrono::duration_cast<milliseconds>(now - subject.since);
  return std::max(age / 8, milliseconds(100));
}

}  // namespace

TEST_CASE("census: the longer a flow lives, the more seldom is it looked at") {
  World world;
  world.add(1);
  world.pass(90ms, eighth);
  CHECK(world.looks.empty());
  world.pass(910ms, eighth);
  CHECK(world.looks[1] >= 5);
  CHECK(world.looks[1] <= 10);
  world.pass(99s, eighth);  // by a ninth each time: ln(100) / ln(9/8) = 39
  CHECK(world.looks[1] >= 30);
  CHECK(world.looks[1] <= 50);
}

TEST_CASE("census: one that has ended is looked at no more") {
  World world;
  world.add(1);
  world.add(2);
  world.pass(10s, [](const Census::Subject& subject, TimePoint now) {
    return subject.flow.client_port == 1 ? std::nullopt : eighth(subject, now);
  });
  CHECK(world.looks[1] == 1);
  CHECK(world.looks[2] > 10);
  CHECK(world.census.subjects() == 1);
}

TEST_CASE("census: a look that fails is made again") {
  World world;
  world.add(1);
  world.pass(1s, [&](const Census::Subject&, TimePoint) -> std::optional<milliseconds> {
    if (world.looks[1] < 3) throw std::runtime_error("no netlink");
    return std::nullopt;
  });
  CHECK(world.looks[1] == 3);
  CHECK(world.census.subjects() == 0);
}

TEST_CASE("census: many are looked at in slices, hastened ones at once") {
  constexpr int kMany = 5'000;
  const auto once_an_hour = [](const Census::Subject&, TimePoint) { return std::optional(1h); };
  World world;
  for (int i = 0; i < kMany; ++i) world.add(static_cast<std::uint16_t>(i), 1h);
  world.census.run(world.now, once_an_hour);
  CHECK(world.looks.empty());

  world.now += 1h;
  world.census.run(world.now, [&](const Census::Subject& subject, TimePoint) {
    ++world.looks[subject.flow.client_port];
    return std::optional<milliseconds>(1h);
  });
  const std::size_t slice = world.looks.size();
  CHECK(slice > 0);
  CHECK(slice <= 500);
  CHECK(world.census.due() >= world.now + 20ms);

  world.census.hasten(world.now);
  world.pass(1ms, once_an_hour);
  std::size_t looks = 0;
  for (const auto& [port, count] : world.looks) looks += static_cast<std::size_t>(count);
  CHECK(looks == kMany + slice);  // those of the first slice, due in an hour, once more
  CHECK(world.census.due() > world.now + 50min);
}

TEST_CASE("census: a flow that is found during a look is looked at, too") {
  World world;
  world.add(1, 0ms);
  world.pass(1s, [&](const Census::Subject& subject, TimePoint) -> std::optional<milliseconds> {
    if (subject.flow.client_port == 1) world.add(2, 0ms);
    return std::nullopt;
  });
  CHECK(world.looks[2] == 1);
}
