// SPDX-License-Identifier: MIT
#include "agent/departure.hpp"

#include <arpa/inet.h>
#include <spdlog/spdlog.h>
#include <sys/socket.h>

#include <algorithm>
#include <cstring>

#include "agent/guarded.hpp"
#include "conn/parcel.hpp"
#include "conn/repair_mode.hpp"
#include "conn/socket_lock.hpp"
#include "control/client_segments.hpp"
#include "handover/handover.h"

namespace tcpmig::agent {
namespace {

using control::TransferState;
using Failure = control::TransferMachine::Failure;

/// Many datagrams back to back overrun the buffers on their way.
constexpr std::size_t kBurst = 64;  // of all departures together, but for
constexpr std::size_t kLeastBurst = 4;
constexpr std::chrono::milliseconds kBurstPause{1};
constexpr int kLatePatience = 16;  // times timeouts.transfer

Snapshot head_of(const Snapshot& whole) {
  Snapshot head = whole;
  head.received.clear();
  head.sent.clear();
  head.unsent.clear();
  head.snd_nxt = head.snd_una;
  return head;
}

Snapshot head_of(const DepartureRecord& record) {
  Snapshot head;
  head.local = local_of(record.flow, record.own_port);
  head.peer = client_of(record.flow);
  head.snd_una = head.snd_nxt = {record.snd_una};
  head.rcv_nxt = {record.rcv_nxt};
  return head;
}

control::TransferMachine::Rules rules_of(const config::Config& config,
                                         const DepartureRecord& record) {
  return {.transfer = config.timeouts.transfer,
          .retry = config.timeouts.retry,
          .idempotent = false,
          .owned = record.generation};
}

}  // namespace

Departure::Departure(DepartureWorld& world, DepartureRecord record, sys::UniqueFd channel,
                     const config::PoolServer& target, Frozen frozen, Bytes payload)
    : world_(world),
      record_(record),
      channel_(std::move(channel)),
      target_(target),
      frozen_(std::move(frozen)),
      payload_(std::move(payload)),
      head_(head_of(frozen_->snapshot())),
      machine_(*this, rules_of(world.config, record), control::next_generation(record.generation)),
      captures_(world.config.limits.hold_packets, abi::WIRE_SNAPSHOT_MAX) {
  record_.snd_una = head_.snd_una.value;
  record_.snd_nxt = frozen_->snapshot().snd_nxt.value;
  record_.rcv_nxt = head_.rcv_nxt.value;
  record_.boot = present_boot();
}

Departure::Departure(DepartureWorld& world, DepartureRecord record, sys::UniqueFd channel,
                     const config::PoolServer& target, sys::UniqueFd connection)
    : world_(world),
      record_(record),
      channel_(std::move(channel)),
      target_(target),
      connection_(std::move(connection)),
      head_(head_of(record)),
      machine_(*this, rules_of(world.config, record), record.offered),
      captures_(world.config.limits.hold_packets, abi::WIRE_SNAPSHOT_MAX) {}

Departure::~Departure() {
  if (!done() && frozen_) frozen_->commit();
}

void Departure::start(TimePoint now) {
  const control::Candidate target{0, target_.node_id};
  if (frozen_)
    machine_.start(target, now);
  else
    machine_.go_on({record_.offered, target}, record_.newest, now);
  send_parts(now);
}

std::uint32_t Departure::present_boot() const {
  return other_boot_ != 0 ? other_boot_ : world_.heartbeat.boot();
}

bool Departure::boot_changed() const { return record_.boot != 0 && record_.boot != present_boot(); }

void Departure::follow_boot() {
  record_.boot = present_boot();
  other_boot_ = 0;
}

control::Transfer Departure::about(std::uint16_t target, std::uint16_t port,
                                   control::Generation generation) const {
  return {world_.self.id, target, service_of(record_.flow), port, 0, generation, client()};
}

control::Transfer Departure::owner() const {
  return about(target_.node_id, target_.port, machine_.owner().generation);
}

/// The first one was written: what the file says now leads the next run to the same questions.
void Departure::write_down() const {
  guarded("write a departure down", [&] { world_.records.write(record_); });
}

// ---- what the machine wants ----

void Departure::send_to_switch(control::Outgoing message) const {
  message.header.detail = htonl(record_.boot);
  message.header.current_generation = htonl(machine_.first());
  world_.port.send(message, world_.network.switch_for(client().address));
}

void Departure::send_to_target(const control::Outgoing& message) const {
  const config::Node* node = world_.config.find_node(target_.node_id);
  const sys::Address& address = client().address.is_ipv4() ? node->address4 : node->address6;
  world_.port.send(message, {address, world_.config.control_port});
}

/// Written down before it is sent: a generation that the next run does not know of could be used for something else.
void Departure::offer(const control::Attempt& attempt) {
  record_.stage = DepartureRecord::Stage::kOffered;
  record_.offered = record_.newest = attempt.generation;
  write_down();
  parts_ = control::whole_messages(about(target_.node_id, target_.port, attempt.generation), head_,
                                   payload_);
  to_send_.clear();
  for (std::size_t part = 0; part < parts_.size(); ++part)
    to_send_.push_back(static_cast<std::uint16_t>(part));
}

void Departure::take_back(control::Generation generation) {
  record_.newest = generation;
  write_down();
  to_send_.clear();
  parts_ = {control::take_back_message(about(world_.self.id, record_.own_port, generation), head_)};
  send_to_switch(parts_.front());
}

/// Of an offer the COMMIT alone: the target asks for the parts that it does not have.
void Departure::repeat() {
  if (to_send_.empty()) send_to_switch(parts_.back());
}

void Departure::resend(std::uint16_t part) {
  if (part < parts_.size() && std::ranges::find(to_send_, part) == to_send_.end())
    to_send_.push_back(part);
}

void Departure::abort(const control::Attempt& attempt) {
  to_send_.clear();
  send_to_target(control::abort_message(
      control::bare_commit(about(target_.node_id, target_.port, attempt.generation), head_)));
}

/// The program has named one server.
std::optional<control::Candidate> Departure::next(const std::set<std::size_t>&) {
  return std::nullopt;
}

void Departure::note(Note note) {
  if (note == Note::kTakenBack) taken_back_ = true;
  if (note == Note::kLeft) left_ = true;
}

void Departure::send_parts(TimePoint now) {
  const std::size_t burst = std::max(kLeastBurst, kBurst / world_.under_way);
  for (std::size_t i = 0; i < burst && !to_send_.empty(); ++i) {
    send_to_switch(parts_[to_send_.front()]);
    to_send_.pop_front();
  }
  next_send_ = now + kBurstPause;
}

// ---- what it hears ----

void Departure::take_answer(const control::Incoming& message, TimePoint now) {
  const abi::wire_header& header = message.header;
  if (stage_ != Stage::kDeciding) return;
  if (header.sender == 0 && header.reason == abi::REASON_OTHER_BOOT)
    other_boot_ = ntohl(header.detail);
  if (!machine_.receive(header, message.payload, now)) return;
  if (header.type == abi::WIRE_REFUSED && header.reason != abi::REASON_REPLAY && !refusal_)
    refusal_ = header;
  decided(now);
}

void Departure::take_capture(CapturedSegment segment) {
  if (!frozen_) return;
  if (captures_.add(frozen_->snapshot(), std::move(segment)) != control::Captures::Outcome::kKept)
    ++world_.counters.captures_dropped;  // the client sends it again
  if (moved_) send_captures();
}

void Departure::overtaken(TimePoint now) {
  if (stage_ == Stage::kDeciding) {
    moved_ = true;
    tell(0, false, {});
    ++world_.counters.migrated;
  }
  if (stage_ == Stage::kSettling) grace_over(now);
  finish();
}

TimePoint Departure::due() const {
  if (stage_ == Stage::kDeciding)
    return to_send_.empty() ? machine_.due() : std::min(machine_.due(), next_send_);
  return stage_ == Stage::kLate || stage_ == Stage::kUnknown ? next_ : TimePoint::max();
}

void Departure::run(TimePoint now) {
  switch (stage_) {
    case Stage::kDeciding:
      if (now >= machine_.due()) machine_.tick(now);
      decided(now);
      if (stage_ == Stage::kDeciding && now >= next_send_) send_parts(now);
      return;
    case Stage::kLate:
      if (now >= next_) send_late(now);
      return;
    case Stage::kUnknown:
      if (now >= next_) finish();
      return;
    case Stage::kSettling:
    case Stage::kDone:
      return;
  }
}

// ---- what becomes of it ----

void Departure::decided(TimePoint now) {
  if (!machine_.over()) return;
  if (machine_.state() == TransferState::kReturned) return returned();
  if (left_) return unknown(now);
  moved();
}

void Departure::moved() {
  moved_ = true;
  stage_ = Stage::kSettling;
  ++world_.counters.migrated;
  record_.stage = DepartureRecord::Stage::kMoved;
  write_down();
  world_.flows.left(record_.flow, record_.generation, Clock::now());
  tell(0, false, {});
  spdlog::debug("{} moved to {}:{}, generation {}", client().str(), target_.node, target_.port,
                machine_.owner().generation);
  payload_ = {};
  parts_.clear();
  if (!frozen_) return finish();
  send_captures();
}

void Departure::send_segment(std::span<const std::byte> segment, bool crafted) const {
  send_to_target(control::segment_message(owner(), segment, crafted));
}

void Departure::send_captures() {
  for (const Bytes& piece : captures_.take_from(head_.rcv_nxt, control::segment_room(client())))
    send_segment(piece, false);
}

void Departure::grace_over(TimePoint now) {
  bool fin = false;
  Bytes late;
  try {
    late = frozen_->late_bytes();
    fin = frozen_->late_fin();
  } catch (const std::system_error& error) {
    spdlog::debug("{} ended behind the lock: {}", client().str(), error.what());  // a RST
  }
  if (late.empty() && !fin) return finish();
  late_ = control::craft_segments(frozen_->snapshot(), late, fin, control::segment_room(client()));
  stage_ = Stage::kLate;
  pause_ = world_.config.timeouts.retry;
  deadline_ = now + kLatePatience * world_.config.timeouts.transfer;
  send_late(now);
}

/// These bytes are acknowledged: nobody else will ever send them again, and a datagram may be lost.
void Departure::send_late(TimePoint now) {
  if (now >= deadline_) return finish();
  for (const Bytes& segment : late_) send_segment(segment, true);
  next_ = now + pause_;
  pause_ *= 2;
}

/// Moved: without a packet. Unknown: by RST, which the switch lets through only if nobody else has turned out to own it.
void Departure::finish() {
  if (stage_ == Stage::kUnknown) {
    thaw();
    const linger at_once{1, 0};
    if (connection_)
      ::setsockopt(connection_.get(), SOL_SOCKET, SO_LINGER, &at_once, sizeof at_once);
  } else if (frozen_) {
    frozen_->commit();
  }
  connection_.reset();
  world_.records.remove(record_.cookie);
  stage_ = Stage::kDone;
}

void Departure::unknown(TimePoint now) {
  stage_ = Stage::kUnknown;
  ++world_.counters.migrate_unknown;
  next_ = now + kLatePatience * world_.config.timeouts.transfer;
  tell(ENOTRECOVERABLE, false,
       "the switch has lost its table, and the target does not say whether it has the connection");
}

/// Above every generation that was used: what is still on its way then changes nothing.
void Departure::make_owner_again() {
  if (record_.newest == record_.offered && !taken_back_) return;
  abi::wire_header commit{};
  commit.generation = htonl(record_.newest);
  commit.snd_nxt = htonl(record_.snd_una);
  commit.target_port = htons(record_.own_port);
  world_.tombstones.claim(record_.flow, commit, 0);
  world_.tombstones.settle(record_.flow, record_.newest, abi::TOMB_CONFIRMED);
  const TimePoint now = Clock::now();
  world_.flows.opened(record_.flow, {.generation = record_.newest,
                                     .target_port = record_.own_port,
                                     .census = 0,
                                     .unsettled = false,
                                     .opened = now,
                                     .renewed = now});
  // our next packet need not begin where the snapshot does: so the switch hears it from us first
  world_.answers.renew(record_.flow, record_.newest, record_.own_port);
}

void Departure::thaw() {
  if (frozen_) {
    connection_ = frozen_->thaw(captures_.all(), world_.deliver);
    return;
  }
  record_.voice().put_back(connection_.get());
  conn::leave_repair(connection_.get(), false);
  conn::open_lock(connection_.get());
  conn::send_what_waits(connection_.get());
}

void Departure::returned() {
  ++world_.counters.migrate_returned;
  make_owner_again();
  thaw();
  connection_.reset();  // its program has its own
  world_.records.remove(record_.cookie);
  const auto [error, reason] = why();
  tell(error, true, reason);
  stage_ = Stage::kDone;
}

std::pair<int, std::string> Departure::why() const {
  if (!frozen_) return {ECONNABORTED, "the agent was ended in the middle"};
  if (machine_.failure() == Failure::kNoAnswer)
    return {ETIMEDOUT, target_.node + " does not answer"};
  if (!refusal_) return {ETIMEDOUT, "the switch does not answer"};
  const bool by_switch = refusal_->sender == 0;
  std::string text = (by_switch ? "the switch" : target_.node) +
                     " refuses: " + control::reason_text(refusal_->reason);
  if (const std::uint32_t detail = ntohl(refusal_->detail); !by_switch && detail != 0)
    text += std::string(" (") + std::strerror(static_cast<int>(detail)) + ")";
  return {ECONNREFUSED, text};
}

/// A program that has ended does not hear it.
void Departure::tell(int error, bool here, const std::string& reason) {
  send_verdict(channel_.get(), error, here, reason);
  channel_.reset();
}

void send_verdict(int channel, int error, bool here, const std::string& reason) noexcept {
  handover_verdict verdict{};
  std::memcpy(verdict.head.magic, HANDOVER_MAGIC, sizeof verdict.head.magic);
  verdict.head.version = HANDOVER_VERSION;
  verdict.head.verb = HANDOVER_VERDICT;
  verdict.error = error;
  verdict.here = here ? 1 : 0;
  try {
    const auto head = std::as_bytes(std::span(&verdict, 1));
    Bytes bytes(head.begin(), head.end());
    const auto text = std::as_bytes(std::span(reason));
    bytes.insert(bytes.end(), text.begin(), text.end());
    conn::send_parcel(channel, bytes, {});
  } catch (const std::exception&) {  // nobody is there any more
  }
}

}  // namespace tcpmig::agent
