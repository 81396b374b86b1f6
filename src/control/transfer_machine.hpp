// SPDX-License-Identifier: MIT
#pragma once
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <set>
#include <span>
#include <vector>

#include "control/message.hpp"
#include "control/transfer_table.hpp"

namespace tcpmig::control {

/// A server, as the driver knows it, and its node.
struct Candidate {
  std::size_t index = 0;
  std::uint16_t node = 0;
};

/// One COMMIT: to whom, and which generation the flow has once it is applied.
struct Attempt {
  Generation generation = 0;
  Candidate server;
};

/// What a TransferMachine needs of the world. Nothing here may call the machine.
class TransferDriver {
 public:
  /// What happened, to be counted.
  enum class Note : std::uint8_t {
    kRepeated,
    kSilent,
    kRetriedOnSilence,
    kNextServer,
    kTakenBack,
    kLeft,  ///< the switch has lost its table, and nobody knows who has the connection
  };

  TransferDriver() = default;
  TransferDriver(const TransferDriver&) = delete;
  TransferDriver& operator=(const TransferDriver&) = delete;
  virtual ~TransferDriver() = default;

  /// Sends all parts of the transfer, the COMMIT last.
  virtual void offer(const Attempt& attempt) = 0;
  /// Sends a COMMIT to the sender itself.
  virtual void take_back(Generation generation) = 0;
  /// Sends once more what offer() or take_back() has sent last.
  virtual void repeat() = 0;
  /// Sends one part of the last offer once more. The number is as the server gave it: it may name no part.
  virtual void resend(std::uint16_t part) = 0;
  virtual void abort(const Attempt& attempt) = 0;
  /// The next server, not one of `tried` (indexes); nullopt: there is none.
  virtual std::optional<Candidate> next(const std::set<std::size_t>& tried) = 0;
  /// Whether the switch has lost its table since the transfer began, or since follow_boot().
  [[nodiscard]] virtual bool boot_changed() const = 0;
  /// From now on the transfer counts as begun in the switch's present boot.
  virtual void follow_boot() = 0;
  virtual void note(Note note) = 0;
};

/// One transfer as its sender sees it: what is sent, what is waited for, what follows from an answer or from silence.
/// Pure: time comes in as a parameter, messages go out through the driver. So the dispatcher and the simulator of the
/// tests run the same code.
///
///               +--- next server, generation + 1 ---------+
///               v                                         |
///   start -> OFFERED -+- refused -------------------------+- none left ---+
///                     +- silence, idempotent: ABORT ------+               |
///                     +- silence, else -> ABORTING -+- ABORTED ---^       |
///                     |                             +- silence -----------+
///                     +- other boot -> ABORTING    |                      |
///                     +- table full, not entitled ------------------------+
///                     |                                                   v
///                     +- RESUMED, already spoke -> MOVED <- spoke -- TAKING BACK -> RETURNED
///
/// A switch that has lost its table cannot be the judge of what began before: then only the server's own word (ABORTED,
/// REFUSED, RESUMED) lets the transfer go on, also for an idempotent request. Where there is none, nobody knows whether the
/// client has heard of the server already: MOVED, so nothing is said to the client.
///
/// Every state has a deadline (Rules::transfer) and repeats its message with a doubling delay until then. The point of
/// no return is the switch's: once the new owner has spoken, it answers every COMMIT with "already spoke", and that
/// means MOVED. So no wrong guess here can execute a request twice. What undoes a transfer is TAKING BACK, a COMMIT
/// to the sender itself with the next generation, which the switch accepts only before that point.
class TransferMachine {
 public:
  using TimePoint = std::chrono::steady_clock::time_point;

  struct Rules {
    std::chrono::milliseconds transfer{2'000};  ///< deadline of each state
    std::chrono::milliseconds retry{50};        ///< first repeat; doubles
    /// The same for the first COMMIT to the first server, whose answers may be known to take longer.
    std::optional<std::chrono::milliseconds> first_retry{};
    bool idempotent = false;  ///< on silence another server may get it (RFC 9110, 9.2.2)
    /// What the flow has when the sender is its owner: a switch that still knows it has applied nothing.
    std::optional<Generation> owned{};
  };
  /// Why a connection came back.
  enum class Failure : std::uint8_t {
    kNone,
    kNoServer,    ///< every server of the pool has refused, or was silent on an idempotent request
    kCannotMove,  ///< the switch refuses for good: table full, not entitled, always stale
    kNoAnswer,    ///< a server may or may not have executed a request that must not run twice
  };

  /// `first`: generation of the first attempt. The driver must outlive the machine.
  TransferMachine(TransferDriver& driver, const Rules& rules, Generation first)
      : driver_(driver), rules_(rules), generation_(first) {}

  /// Offers the connection to the first server; sends at once. Called once, before anything else.
  void start(Candidate first, TimePoint now);
  /// Instead of start(): a former run of the sender has offered the connection, and was killed before it knew. `newest`: the newest
  /// generation that it has sent a COMMIT with. The server is asked never to open it, then it is taken back.
  void go_on(const Attempt& offered, Generation newest, TimePoint now);
  /// Takes an authentic answer about this flow. False: it is not about the present attempt, or came too late.
  bool receive(const abi::wire_header& answer, std::span<const std::byte> payload, TimePoint now);
  /// To be called when due() has come.
  void tick(TimePoint now);
  /// When tick() wants to be called; TimePoint::max() once it is over.
  [[nodiscard]] TimePoint due() const noexcept;

  [[nodiscard]] TransferState state() const noexcept { return state_; }
  [[nodiscard]] bool over() const noexcept { return state_ >= TransferState::kMoved; }
  /// MOVED: who has it.
  [[nodiscard]] const Attempt& owner() const noexcept { return owner_; }
  /// The first generation of the COMMITs of which any may have been applied: where the switch knows it or a newer one on
  /// a flow that has ended, that was ours, or what came after it.
  [[nodiscard]] Generation first() const noexcept { return first_; }
  /// RETURNED: why.
  [[nodiscard]] Failure failure() const noexcept { return failure_; }

 private:
  void handle(TransferEvent event, const abi::wire_header& answer,
              std::span<const std::byte> payload, TimePoint now);
  void enter(TransferState state, TimePoint now);
  void offer(Candidate server, TimePoint now);
  void next_server(TimePoint now);
  void silence(TimePoint now);
  void ask(TimePoint now);
  void again(TimePoint now);
  void leave();
  void take_back(Failure why, Generation generation, TimePoint now);
  void note_used(Generation generation);
  void taken_back(TimePoint now);
  void renumber(const abi::wire_header& answer, TimePoint now);
  void repeat(TimePoint now);
  void resend(std::span<const std::byte> parts);
  void moved(const abi::wire_header& answer);
  void returned(bool confirmed);

  TransferDriver& driver_;
  Rules rules_;
  TransferState state_ = TransferState::kOffered;
  Generation generation_;
  std::vector<Attempt> attempts_;  ///< "already spoke" may speak of any of them
  std::set<std::size_t> tried_;
  unsigned stale_ = 0;
  bool asked_ = false;        ///< ABORTING because the switch has lost its table
  bool left_silent_ = false;  ///< an attempt before the present one may have been opened
  Generation first_ = 0;
  std::optional<Generation> newest_;  ///< that any COMMIT had
  std::set<Generation> take_backs_;   ///< generations of COMMITs to ourselves
  unsigned unsettled_ = 0;            ///< COMMITs sent that may have been applied
  TimePoint deadline_;
  TimePoint repeat_at_;
  std::chrono::milliseconds delay_{0};
  Attempt owner_;
  Failure failure_ = Failure::kNone;
};

}  // namespace tcpmig::control
