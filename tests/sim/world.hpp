// SPDX-License-Identifier: MIT
#pragma once
#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

/// A transfer in a world of its own: a client, who moves its connection (a dispatcher, or a server's agent, with the real
/// TransferMachine), the switch (the real decisions of bpf/switch_core_*.h), `switch run` (the real decisions of src/switch), three
/// servers (a model of the kernel and the agent, with the real Assembly), and a network that drops, doubles, delays and reorders.
/// Everything happens in simulated time, from decisions that a Chooser makes, so a run can be repeated.
namespace tcpmig::sim {

/// Damage done on purpose: each must be found.
enum class Mutation : std::uint8_t {
  kNone,
  kNoGenerationCheck,   ///< the switch takes any generation
  kNoPointOfNoReturn,   ///< the switch forgets that an owner has spoken
  kAnswerOfAnyAttempt,  ///< an answer to one attempt counts for the next: RESUMED is not idempotent
  kShortHold,           ///< the hold of early packets expires before their connection comes
  kClosedEarly,         ///< the source is closed before the confirmation
  kTombstonesLost,      ///< a restarted agent has forgotten what was opened
  kNothingAnnounced,    ///< agents do not announce their flows to a switch that has lost its table
  kRetriesEverything,   ///< a request that must not run twice goes to another server on silence
  kHandedBackDropped,   ///< what a refusing server gives back is thrown away
  kNothingMissing,      ///< a server does not ask for the parts that have not come
  kNothingReaped,       ///< `switch run` resets nobody
  kOwnedForgotten,      ///< who gives away a flow that it owns forgets which generation was its own
  kLeavingAnnounced,    ///< an agent announces also what it is giving away
  kLateBytesFromZero,  ///< what slipped past the lock is sent after the connection as if it began the stream
  kLast = kLateBytesFromZero,
};

/// Who may be killed, at any step. The last one is no process: the switch is replaced by one without a table.
enum class Victim : std::uint8_t {
  kNobody,
  kDispatcher,
  kAgent1,
  kAgent2,
  kAgent3,
  kSwitchRun,
  kTable,
};
inline constexpr unsigned kVictims = 6;

/// Makes the decisions of a run. 0 is always the ordinary course.
class Chooser {
 public:
  Chooser() = default;
  Chooser(const Chooser&) = delete;
  Chooser& operator=(const Chooser&) = delete;
  virtual ~Chooser() = default;
  /// What the world is like: 0 .. n-1.
  virtual unsigned pick(unsigned n) = 0;
  /// The same for what is the case one time in `n`.
  virtual bool rarely(unsigned n) = 0;
  /// What the network does to a packet: 0 (nothing) .. n-1.
  virtual unsigned fault(unsigned n) = 0;
  /// Who dies before the next step.
  virtual Victim victim() = 0;
  /// What follows: for how long, and whether for ever. 0 .. n-1.
  virtual unsigned sequel(unsigned n) = 0;
};

/// How often there are faults and kills is drawn first, when faults begin, and whether all are of one kind: so there are runs
/// where everything is lost for a while, and some that are quiet for long.
class RandomChooser : public Chooser {
 public:
  explicit RandomChooser(std::uint64_t seed);
  unsigned pick(unsigned n) override { return static_cast<unsigned>(draw() % n); }
  bool rarely(unsigned n) override { return pick(n) == n - 1; }
  unsigned fault(unsigned n) override;
  Victim victim() override;
  unsigned sequel(unsigned n) override { return pick(n); }

 private:
  std::uint64_t draw();

  std::uint64_t state_;
  unsigned fault_every_, kill_every_;  ///< 0: never
  unsigned quiet_;                     ///< packets before the first fault
  unsigned favourite_;                 ///< fault; 0: none
};

/// Every run with any choice in the first `picks` decisions about the world and the first `faults` about the network, one after
/// the other; with nobody killed, or with one victim at one step and any sequel.
class AllChoices : public Chooser {
 public:
  AllChoices(std::size_t picks, std::size_t faults) : picks_{picks}, faults_{faults} {}
  void kill(Victim victim, std::size_t step) {
    victim_ = victim;
    kill_at_ = step;
  }
  unsigned pick(unsigned n) override { return choose(n, picks_); }
  bool rarely(unsigned) override { return pick(2) == 1; }
  /// From this packet on all are lost, `length` of them.
  void lose(std::size_t from, std::size_t length) {
    lost_from_ = from;
    lost_ = length;
  }
  unsigned fault(unsigned n) override {
    const std::size_t packet = packet_++;
    return packet >= lost_from_ && packet < lost_from_ + lost_ ? 1 : choose(n, faults_);
  }
  Victim victim() override { return step_++ == kill_at_ ? victim_ : Victim::kNobody; }
  unsigned sequel(unsigned n) override { return choose(n, sequels_); }
  /// Makes the next run; false: all have been, and it begins anew.
  bool next();
  /// The last run has come to the step at which somebody was to be killed.
  [[nodiscard]] bool has_killed() const noexcept { return step_ > kill_at_; }
  /// The last run has come to the packet with which the loss was to begin.
  [[nodiscard]] bool has_lost() const noexcept { return packet_ > lost_from_; }
  void begin();

 private:
  struct Choice {
    unsigned taken, of;
  };
  /// How many decisions of a kind are open; 0: the ordinary course.
  struct Budget {
    std::size_t all;
    std::size_t made = 0;
  };
  unsigned choose(unsigned n, Budget& budget);

  Budget picks_, faults_, sequels_{1};
  std::size_t step_ = 0, packet_ = 0;
  std::size_t at_ = 0;
  std::vector<Choice> path_;
  Victim victim_ = Victim::kNobody;
  std::size_t kill_at_ = 0, lost_from_ = 0, lost_ = 0;
};

struct Scenario {
  bool idempotent = true;
  bool between_servers =
      false;  ///< a program on a server gives its connection to another; else a dispatcher does
  bool crashes = false;      ///< any process may be killed
  bool loses_table = false;  ///< the switch may be replaced by one without a table
  unsigned faults = 8;       ///< how often the network may misbehave in one run
  unsigned kills = 2;        ///< how many victims there may be
  Mutation mutation = Mutation::kNone;
};

/// What came of a run. Empty: all invariants hold.
std::string run(const Scenario& scenario, Chooser& chooser);

}  // namespace tcpmig::sim
