// SPDX-License-Identifier: MIT
// Transfers under every kind of bad luck: the real state machine, the real decisions of the switch.
#include <cstdio>
#include <cstdlib>

#include "catch.hpp"
#include "sim/world.hpp"

using namespace tcpmig::sim;

namespace {

/// Runs per case; TCPMIG_SIM_RUNS asks for more.
unsigned runs_wanted(unsigned usual) {
  const char* text = std::getenv("TCPMIG_SIM_RUNS");
  return text != nullptr ? static_cast<unsigned>(std::strtoul(text, nullptr, 10)) : usual;
}

/// The first seed whose run breaks an invariant, and how; empty: none of `runs` does.
std::string first_violation(const Scenario& scenario, std::uint64_t seed, unsigned runs) {
  for (unsigned i = 0; i < runs; ++i) {
    RandomChooser chooser(seed + i);
    if (const std::string broken = run(scenario, chooser); !broken.empty())
      return "seed " + std::to_string(seed + i) + ": " + broken;
  }
  return {};
}

constexpr std::uint64_t kSeed = 20'000'000;

/// Of the first schedule; TCPMIG_SIM_SEED asks for others.
std::uint64_t seed_wanted() {
  const char* text = std::getenv("TCPMIG_SIM_SEED");
  return text != nullptr ? std::strtoull(text, nullptr, 10) : kSeed;
}

const char* name_of(const Scenario& scenario) {
  if (scenario.between_servers) return "from a server";
  return scenario.idempotent ? "GET" : "POST";
}

/// Of the three kinds of transfer one.
Scenario kind(int number) { return {.idempotent = number == 0, .between_servers = number == 2}; }

/// Every choice. Empty: all invariants hold.
std::string first_violation(const Scenario& scenario, AllChoices& choices, std::uint64_t& count) {
  do {
    ++count;
    choices.begin();
    if (const std::string broken = run(scenario, choices); !broken.empty())
      return "schedule " + std::to_string(count) + ": " + broken;
  } while (choices.next());
  return {};
}

/// Every choice with this victim killed at each step, until there is none left in any run.
std::string first_violation_of_kill(const Scenario& scenario, Victim victim, std::size_t picks,
                                    std::uint64_t& count) {
  bool killed = true;
  for (std::size_t step = 0; killed; ++step) {
    AllChoices choices(picks, 0);
    choices.kill(victim, step);
    killed = false;
    do {
      ++count;
      choices.begin();
      if (const std::string broken = run(scenario, choices); !broken.empty())
        return "victim " + std::to_string(static_cast<int>(victim)) + " at step " +
               std::to_string(step) + ", schedule " + std::to_string(count) + ": " + broken;
      killed = killed || choices.has_killed();
    } while (choices.next());
  }
  return {};
}

/// Where each mistake shows.
Scenario damaged(Mutation mutation) {
  using enum Mutation;
  Scenario scenario{.idempotent = false, .mutation = mutation};
  switch (mutation) {
    case kNoPointOfNoReturn:
    case kNothingReaped:
      scenario.idempotent = scenario.crashes = true;
      break;
    case kTombstonesLost:
      scenario.crashes = true;
      break;
    case kNothingAnnounced:
      scenario.loses_table = true;
      break;
    case kNothingMissing:
      scenario.between_servers = true;
      break;
    case kOwnedForgotten:
      scenario.between_servers = scenario.loses_table = true;
      break;
    case kLeavingAnnounced:
      scenario.between_servers = scenario.crashes = scenario.loses_table = true;
      break;
    default:
      break;
  }
  return scenario;
}

}  // namespace

TEST_CASE("simulation: random schedules keep every invariant") {
  const int number = GENERATE(0, 1, 2);
  const bool crashes = GENERATE(false, true);
  const bool loses_table = GENERATE(false, true);
  const unsigned runs = runs_wanted(17'000);
  const std::uint64_t seed = seed_wanted();
  Scenario scenario = kind(number);
  scenario.crashes = crashes;
  scenario.loses_table = loses_table;
  std::printf("%u schedules from seed %llu: %s, %s, %s\n", runs,
              static_cast<unsigned long long>(seed), name_of(scenario),
              crashes ? "with kills" : "no kills",
              loses_table ? "the switch loses its table" : "the switch keeps its table");
  CHECK(first_violation(scenario, seed, runs) == "");
}

TEST_CASE("simulation: every small schedule keeps every invariant") {
  const Scenario scenario = kind(GENERATE(0, 1, 2));
  AllChoices choices(8, 2);
  std::uint64_t count = 0;
  CHECK(first_violation(scenario, choices, count) == "");
  CHECK(count > 10'000);
  std::printf("%s: %llu schedules\n", name_of(scenario), static_cast<unsigned long long>(count));
}

// Once broken by it: the first attempt refused, every COMMIT of the second lost; that was taken for moved to the first.
TEST_CASE("simulation: a network that loses everything for a while keeps every invariant") {
  const Scenario scenario = kind(GENERATE(0, 1, 2));
  std::uint64_t count = 0;
  bool lost = true;
  for (std::size_t packet = 0; lost; ++packet) {
    AllChoices choices(8, 0);
    choices.lose(packet, scenario.faults);
    INFO("from packet " << packet);
    CHECK(first_violation(scenario, choices, count) == "");
    lost = choices.has_lost() && packet < 50;
  }
  CHECK(count > 10'000);
  std::printf("%s: %llu schedules\n", name_of(scenario), static_cast<unsigned long long>(count));
}

TEST_CASE("simulation: one kill of anybody at any step keeps every invariant") {
  Scenario scenario = kind(GENERATE(0, 1, 2));
  scenario.crashes = scenario.loses_table = true;
  scenario.kills = 1;
  std::uint64_t count = 0;
  for (unsigned victim = 1; victim <= kVictims; ++victim)
    CHECK(first_violation_of_kill(scenario, static_cast<Victim>(victim), 4, count) == "");
  CHECK(count > 10'000);
  std::printf("%s: %llu schedules\n", name_of(scenario), static_cast<unsigned long long>(count));
}

TEST_CASE("simulation: damage done on purpose is found") {
  for (auto i = static_cast<int>(Mutation::kNone) + 1; i <= static_cast<int>(Mutation::kLast);
       ++i) {
    INFO("mutation " << i);
    const std::string found = first_violation(damaged(static_cast<Mutation>(i)), kSeed, 200'000);
    std::printf("mutation %d: %s\n", i, found.c_str());
    CHECK_FALSE(found.empty());
  }
}
