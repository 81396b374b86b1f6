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

}  // namespace

TEST_CASE("simulation: random schedules keep every invariant") {
  const bool idempotent = GENERATE(true, false);
  const bool crashes = GENERATE(false, true);
  const bool loses_table = GENERATE(false, true);
  const unsigned runs = runs_wanted(30'000);
  const std::uint64_t seed = seed_wanted();
  std::printf("%u schedules from seed %llu: %s, %s, %s\n", runs,
              static_cast<unsigned long long>(seed), idempotent ? "GET" : "POST",
              crashes ? "with kills" : "no kills",
              loses_table ? "the switch loses its table" : "the switch keeps its table");
  const Scenario scenario{.idempotent = idempotent, .crashes = crashes, .loses_table = loses_table};
  CHECK(first_violation(scenario, seed, runs) == "");
}

TEST_CASE("simulation: schedules that once broke an invariant") {
  // the first attempt refused, every COMMIT of the second lost: taken for moved to the first
  CHECK(first_violation({.idempotent = true}, 20'252'973, 1) == "");
}

TEST_CASE("simulation: every small schedule keeps every invariant") {
  const bool idempotent = GENERATE(true, false);
  const Scenario scenario{.idempotent = idempotent, .faults = 3};
  AllChoices choices(7);
  std::string broken;
  std::uint64_t count = 0;
  do {
    broken = run(scenario, choices);
    ++count;
  } while (broken.empty() && choices.next());
  std::printf("%llu schedules, every choice of the first seven\n",
              static_cast<unsigned long long>(count));
  CHECK(broken == "");
  CHECK(count > 1000);
}

TEST_CASE("simulation: damage done on purpose is found") {
  const auto mutation = GENERATE(Mutation::kNoGenerationCheck, Mutation::kNoPointOfNoReturn,
                                 Mutation::kAnswerOfAnyAttempt, Mutation::kNoHold,
                                 Mutation::kClosedEarly, Mutation::kTombstonesLost,
                                 Mutation::kNothingAnnounced, Mutation::kRetriesEverything);
  INFO("mutation " << static_cast<int>(mutation));
  const bool needs_a_kill =
      mutation == Mutation::kTombstonesLost || mutation == Mutation::kNoPointOfNoReturn;
  const Scenario scenario{.idempotent = mutation == Mutation::kNoPointOfNoReturn,
                          .crashes = needs_a_kill,
                          .loses_table = mutation == Mutation::kNothingAnnounced,
                          .mutation = mutation};
  const std::string found = first_violation(scenario, kSeed, 200'000);
  std::printf("mutation %d: %s\n", static_cast<int>(mutation), found.c_str());
  CHECK_FALSE(found.empty());
}
