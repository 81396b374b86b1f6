// SPDX-License-Identifier: MIT
#pragma once
#include <deque>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <utility>

#include <tcpmig/freeze.hpp>
#include <tcpmig/resume.hpp>

#include "agent/answers.hpp"
#include "agent/departure_record.hpp"
#include "agent/flows.hpp"
#include "agent/tombstones.hpp"
#include "control/captures.hpp"
#include "control/grace_period.hpp"
#include "control/transfer_machine.hpp"
#include "control/transfer_messages.hpp"
#include "sys/aside.hpp"

namespace tcpmig::agent {

/// What a departure needs of the agent.
struct DepartureWorld {
  const config::Config& config;
  const config::Node& self;
  ControlPort& port;
  const control::NodeNetwork& network;
  const control::Heartbeat& heartbeat;
  Tombstones& tombstones;
  Flows& flows;
  Answers& answers;
  Deliver deliver;
  Counters& counters;
  DepartureRecords records;
  sys::Aside& aside;          ///< closes what a program has given
  std::size_t under_way = 1;  ///< departures that share the way to the switch
};

/// What a program hears in the end (struct handover_verdict).
void send_verdict(int channel, int error, bool here, const std::string& reason) noexcept;

/// One connection of a program of this node that goes to another server: carries out, with real messages, what control::TransferMachine
/// decides. Frozen whole, and so in repair.
///
///   MIGRATE -> freeze -> OFFERED -+- RESUMED, already spoke -> its program hears that it has gone -> grace period -> late bytes -> closed
///                                 +- else TAKING BACK -> tombstone of the new generation, thawed -> its program hears why
///                                 +- refused by a target that has spoken: it is lost -> its program hears that
///                                 +- nobody knows -> its program hears that; after a long while RST
class Departure : private control::TransferDriver {
 public:
  Departure(DepartureWorld& world, DepartureRecord record, sys::UniqueFd channel,
            const config::PoolServer& target, Frozen frozen, Bytes payload);
  /// One that a former run has begun: `connection` is frozen.
  Departure(DepartureWorld& world, DepartureRecord record, sys::UniqueFd channel,
            const config::PoolServer& target, sys::UniqueFd connection);
  /// Not done: it stays frozen, for the next run.
  ~Departure() override;
  Departure(const Departure&) = delete;
  Departure& operator=(const Departure&) = delete;

  void start(TimePoint now);
  void take_answer(const control::Incoming& message, TimePoint now);
  void take_capture(CapturedSegment segment);
  /// Of the client; the target that has refused it gives it back.
  bool take_handed_back(const abi::wire_header& header, std::span<const std::byte> segment);
  /// A program asks what became of it: it hears it in the end, where whoever asked before has gone. False: who asked is still there.
  bool adopt(sys::UniqueFd& channel);
  /// Tells who asked that it is being worked at.
  void show_life() const;
  /// One of a former run that had moved: only late bytes are to be looked for.
  void start_moved();
  /// The flow comes to this node again: its owner had it.
  void overtaken(TimePoint now);
  [[nodiscard]] TimePoint due() const;
  void run(TimePoint now);

  [[nodiscard]] bool done() const noexcept { return stage_ == Stage::kDone; }
  /// It has gone, and there is nothing more to wait for but a grace period.
  [[nodiscard]] bool waits_for_grace() const noexcept { return stage_ == Stage::kSettling; }
  /// True once: it is time to ask for that.
  [[nodiscard]] bool asks_for_grace() { return waits_for_grace() && !std::exchange(asked_, true); }
  void grace_over(TimePoint now);
  [[nodiscard]] bool has_moved() const noexcept { return moved_; }
  [[nodiscard]] const DepartureRecord& record() const noexcept { return record_; }
  [[nodiscard]] std::size_t bytes() const noexcept { return payload_.size() + frozen_bytes_; }
  /// After overtaken(): segments that nobody else has, for the connection that has come.
  [[nodiscard]] std::vector<Bytes> take_late() { return std::exchange(late_, {}); }
  /// Who has it now.
  [[nodiscard]] control::Transfer owner() const;

 private:
  enum class Stage : std::uint8_t { kDeciding, kSettling, kLate, kUnknown, kDone };

  void offer(const control::Attempt& attempt) override;
  void take_back(control::Generation generation) override;
  void repeat() override;
  void resend(std::uint16_t part) override;
  void abort(const control::Attempt& attempt) override;
  std::optional<control::Candidate> next(const std::set<std::size_t>& tried) override;
  [[nodiscard]] bool boot_changed() const override;
  void follow_boot() override;
  void note(Note note) override;

  [[nodiscard]] std::uint32_t present_boot() const;
  [[nodiscard]] sys::Endpoint client() const { return client_of(record_.flow); }
  [[nodiscard]] control::Transfer about(std::uint16_t target, std::uint16_t port,
                                        control::Generation generation) const;
  bool write_down() noexcept;
  void send_to_switch(control::Outgoing message) const;
  void send_to_target(const control::Outgoing& message) const;
  void send_segment(std::span<const std::byte> segment, bool crafted) const;
  void send_parts(TimePoint now);
  void send_captures();
  void decided(TimePoint now);
  [[nodiscard]] bool is_lost() const;
  void moved();
  void returned();
  [[nodiscard]] std::pair<Bytes, bool> late_bytes() const;
  void unknown(TimePoint now);
  void thaw();
  void make_owner_again();
  void send_late(TimePoint now);
  void finish();
  void tell(int error, bool here, const std::string& reason);
  [[nodiscard]] std::pair<int, std::string> why() const;

  DepartureWorld& world_;
  DepartureRecord record_;
  sys::UniqueFd channel_;
  const config::PoolServer& target_;
  std::optional<Frozen> frozen_;
  std::size_t frozen_bytes_ = 0;  ///< of its queues
  sys::UniqueFd connection_;      ///< of a former run
  Bytes payload_;
  Snapshot head_;  ///< without queues: for the headers
  std::vector<control::Outgoing> parts_;
  std::deque<std::uint16_t> to_send_;
  TimePoint next_send_;
  control::TransferMachine machine_;
  control::Captures captures_;
  Stage stage_ = Stage::kDeciding;
  bool moved_ = false;
  bool left_ = false;  ///< nobody knows who has it
  bool taken_back_ = false;
  bool asked_ = false;
  bool recovered_ = false;
  bool returned_ = false;  ///< counted
  bool thawed_ = false;
  bool written_ = false;    ///< what is sent
  bool abandoned_ = false;  ///< an offer that could not be written down, and was not sent
  std::optional<control::Generation> known_owner_;  ///< by a former run
  struct Told {
    int error = 0;
    bool here = false;
    std::string reason;
  };
  std::optional<Told> told_;
  std::uint32_t other_boot_ = 0;  ///< that a refusal has named, sooner than a heartbeat
  std::optional<abi::wire_header> refusal_;
  std::vector<Bytes> late_;
  TimePoint next_;
  TimePoint deadline_;
  std::chrono::milliseconds pause_{0};
};

}  // namespace tcpmig::agent
