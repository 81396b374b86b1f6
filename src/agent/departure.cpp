// SPDX-License-Identifier: MIT
#include "agent/departure.hpp"

#include <arpa/inet.h>

#include <algorithm>

#include "agent/guarded.hpp"
#include "conn/segment.hpp"

namespace tcpmig::agent {
namespace {

/// Many datagrams back to back overrun the buffers on their way.
constexpr std::size_t kBurst = 64;  // of all departures together, but for
constexpr std::size_t kLeastBurst = 4;
constexpr std::chrono::milliseconds kBurstPause{1};

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

std::size_t queues_of(const Snapshot& snapshot) {
  return snapshot.received.size() + snapshot.sent.size() + snapshot.unsent.size();
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
      frozen_bytes_(queues_of(frozen_->snapshot())),
      payload_(std::move(payload)),
      head_(head_of(frozen_->snapshot())),
      machine_(*this, rules_of(world.config, record), control::next_generation(record.generation)),
      captures_(world.config.limits.hold_packets, abi::WIRE_SNAPSHOT_MAX) {
  record_.snd_una = head_.snd_una.value;
  record_.snd_nxt = frozen_->snapshot().snd_nxt.value;
  record_.rcv_nxt = head_.rcv_nxt.value;
  record_.peer_closed = head_.peer_closed();
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
      captures_(world.config.limits.hold_packets, abi::WIRE_SNAPSHOT_MAX),
      recovered_(true) {}

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
  decided(now);
}

void Departure::start_moved() {
  known_owner_ = record_.offered;
  moved();
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
  return about(target_.node_id, target_.port, known_owner_.value_or(machine_.owner().generation));
}

/// False: the file says what it said.
bool Departure::write_down() noexcept {
  written_ = false;
  guarded("write a departure down", [&] {
    world_.records.write(record_);
    written_ = true;
  });
  return written_;
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
  to_send_.clear();
  abandoned_ = !write_down();
  if (abandoned_) return;
  parts_ = control::whole_messages(about(target_.node_id, target_.port, attempt.generation), head_,
                                   payload_);
  for (std::size_t part = 0; part < parts_.size(); ++part)
    to_send_.push_back(static_cast<std::uint16_t>(part));
}

void Departure::take_back(control::Generation generation) {
  record_.newest = generation;
  to_send_.clear();
  parts_ = {control::take_back_message(about(world_.self.id, record_.own_port, generation), head_)};
  if (write_down()) send_to_switch(parts_.front());
}

/// Of an offer the COMMIT alone: the target asks for the parts that it does not have.
void Departure::repeat() {
  if (to_send_.empty() && (written_ || write_down())) send_to_switch(parts_.back());
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
  const bool present = ntohl(header.generation) == record_.newest;
  if (present && header.sender == 0 && header.reason == abi::REASON_OTHER_BOOT)
    other_boot_ = ntohl(header.detail);
  if (!machine_.receive(header, message.payload, now)) return;
  if (header.type == abi::WIRE_REFUSED && header.reason != abi::REASON_REPLAY && !refusal_)
    refusal_ = header;
  decided(now);
}

void Departure::take_capture(CapturedSegment segment) {
  if (captures_.add(head_, std::move(segment)) != control::Captures::Outcome::kKept)
    ++world_.counters.captures_dropped;  // the client sends it again
  if (moved_) send_captures();
}

bool Departure::take_handed_back(const abi::wire_header& header,
                                 std::span<const std::byte> segment) {
  const control::Generation generation = ntohl(header.generation);
  if (ntohs(header.sender) != target_.node_id || !control::newer(generation, record_.generation) ||
      control::newer(generation, record_.offered))
    return false;
  take_capture(
      {.cookie = record_.cookie, .bytes = conn::readdress(head_.peer, head_.local, segment)});
  return true;
}

/// What was late is sent to the former owner once more, who may be the one that sends the connection here; and kept: take_late().
void Departure::overtaken(TimePoint now) {
  if (stage_ == Stage::kDeciding) {
    moved_ = true;
    known_owner_ = record_.offered;
    tell(0, false, {});
    ++world_.counters.migrated;
    grace_over(now);
  } else if (stage_ == Stage::kSettling) {
    grace_over(now);
  }
  finish();
}

TimePoint Departure::due() const {
  if (stage_ == Stage::kDeciding && machine_.over()) return next_;  // what follows has failed
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

}  // namespace tcpmig::agent
