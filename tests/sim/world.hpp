// SPDX-License-Identifier: MIT
#pragma once
#include <array>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <queue>
#include <random>
#include <set>
#include <string>
#include <vector>

#include "control/transfer_machine.hpp"
#include "shared/tombstone.h"

/// A transfer in a world of its own: a client, a dispatcher (the real TransferMachine), the switch (the real decisions of
/// bpf/switch_core_*.h) and three servers (a model of the kernel and the agent), and a network that drops, doubles, delays
/// and reorders. Everything happens in simulated time, from decisions that a Chooser makes, so a run can be repeated.
namespace tcpmig::sim {

/// Damage done on purpose: each must be found.
enum class Mutation : std::uint8_t {
  kNone,
  kNoGenerationCheck,   ///< the switch takes any generation
  kNoPointOfNoReturn,   ///< the switch forgets that an owner has spoken
  kAnswerOfAnyAttempt,  ///< an answer to one attempt counts for the next: RESUMED is not idempotent
  kNoHold,              ///< early packets are answered at once by the kernel
  kClosedEarly,         ///< the source is closed before the confirmation
  kTombstonesLost,      ///< a restarted agent has forgotten what was opened
  kNothingAnnounced,    ///< agents do not announce their flows to a switch that has lost its table
  kRetriesEverything,   ///< a request that must not run twice goes to another server on silence
};

/// Makes the decisions of a run. 0 is always the ordinary course.
class Chooser {
 public:
  virtual ~Chooser() = default;
  /// 0 .. n-1
  virtual unsigned pick(unsigned n) = 0;
};

class RandomChooser : public Chooser {
 public:
  explicit RandomChooser(std::uint64_t seed) : random_(seed) {}
  unsigned pick(unsigned n) override { return static_cast<unsigned>(random_() % n); }

 private:
  std::mt19937_64 random_;
};

/// Every run in which one of the first `depth` decisions is not the ordinary one, one after the other.
class AllChoices : public Chooser {
 public:
  explicit AllChoices(std::size_t depth) : depth_(depth) {}
  unsigned pick(unsigned n) override;
  /// Makes the next run; false: all have been.
  bool next();

 private:
  struct Choice {
    unsigned taken, of;
  };
  std::size_t depth_;
  std::size_t at_ = 0;
  std::vector<Choice> path_;
};

struct Scenario {
  bool idempotent = true;
  bool crashes = false;      ///< dispatcher and agents may be killed
  bool loses_table = false;  ///< the switch is replaced by one without a table
  unsigned faults = 8;       ///< how often the network may misbehave in one run
  Mutation mutation = Mutation::kNone;
};

/// What came of a run. Empty: all invariants hold.
std::string run(const Scenario& scenario, Chooser& chooser);

}  // namespace tcpmig::sim
