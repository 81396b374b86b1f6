// SPDX-License-Identifier: MIT
#pragma once
#include <atomic>
#include <deque>
#include <map>
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
  std::size_t under_way = 1;  ///< departures that share the way to the switch
};

/// What a program hears in the end (struct handover_verdict).
void send_verdict(int channel, int error, bool here, const std::string& reason) noexcept;

/// One connection of a program of this node that goes to another server: carries out, with real messages, what control::TransferMachine
/// decides. Frozen whole, and so in repair.
///
///   MIGRATE -> freeze -> OFFERED -+- RESUMED, already spoke -> its program hears that it has gone -> grace period -> late bytes -> closed
///                                 +- else TAKING BACK -> tombstone of the new generation, thawed -> its program hears why
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
  [[nodiscard]] std::size_t bytes() const noexcept { return payload_.size(); }
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
  void write_down() const;
  void send_to_switch(control::Outgoing message) const;
  void send_to_target(const control::Outgoing& message) const;
  void send_segment(std::span<const std::byte> segment, bool crafted) const;
  void send_parts(TimePoint now);
  void send_captures();
  void decided(TimePoint now);
  void moved();
  void returned();
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
  sys::UniqueFd connection_;  ///< of a former run
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
  std::uint32_t other_boot_ = 0;  ///< that a refusal has named, sooner than a heartbeat
  std::optional<abi::wire_header> refusal_;
  std::vector<Bytes> late_;
  TimePoint next_;
  TimePoint deadline_;
  std::chrono::milliseconds pause_{0};
};

}  // namespace tcpmig::agent
