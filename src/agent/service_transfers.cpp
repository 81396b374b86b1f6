// SPDX-License-Identifier: MIT
// The service's way from a transfer to its answer.
#include <arpa/inet.h>
#include <endian.h>

#include <system_error>

#include "agent/guarded.hpp"
#include "agent/segments.hpp"
#include "agent/service.hpp"
#include "conn/segment.hpp"

namespace tcpmig::agent {
namespace {

Opened opened_by_program(const abi::node_event& event) {
  Opened opened{.flow = event.flow,
                .question = event.header,
                .from = {sys::Address(event.from), ntohs(event.from_port)},
                .stamps = {},
                .when = Clock::now()};
  opened.stamps = {event.header.switch_ns, htobe64(event.received_ns), htobe64(event.done_ns)};
  return opened;
}

Opened opened_here(const Arrival& arrival) {
  const TimePoint now = Clock::now();
  Opened opened{arrival.flow, arrival.commit, arrival.from, {}, now};
  opened.stamps = {arrival.commit.switch_ns, htobe64(nanoseconds(arrival.arrived)),
                   htobe64(nanoseconds(now))};
  return opened;
}

}  // namespace

void Service::on_events() {
  for (const abi::node_event& event : programs_.take_events())
    guarded("event", [&] { on_event(event); });
}

void Service::on_event(const abi::node_event& event) {
  const sys::Endpoint from{sys::Address(event.from), ntohs(event.from_port)};
  const auto reason = static_cast<abi::wire_reason>(event.reason);
  switch (static_cast<abi::node_event_type>(event.type)) {
    case abi::EVENT_OPENED:
      look_for_child(opened_by_program(event));
      return;
    case abi::EVENT_REFUSED:
      if (reason != abi::REASON_TOMBSTONES_FULL)  // all others have claimed theirs
        flows_.settled(event.flow, ntohl(event.header.generation), Clock::now());
      answers_.refused(event.header, from, reason, event.detail);
      return hand_back(event.flow, event.header, from);
    case abi::EVENT_DUPLICATE:
      if (const auto tombstone = tombstones_.find(event.flow))
        answer_again(event.flow, *tombstone, event.header, from);
      return;
    case abi::EVENT_ANNOUNCED:  // the datagram itself is on its way to our socket
      flows_.settled(event.flow, ntohl(event.header.generation), Clock::now());
      return;
    case abi::EVENT_STRAY_SYN:
      flows_.stray_syn(event.flow, Clock::now());
      return;
  }
}

/// A COMMIT has come that we shall open: from now on early packets wait for it, whatever an earlier connection has left.
void Service::announce(const abi::flow_key& flow, const abi::wire_header& commit) {
  if (tombstones_.announce(flow, commit).what == abi::TOMBSTONE_DONE)
    flows_.settled(flow, ntohl(commit.generation), Clock::now());
}

/// Parts are whole, or the tc program left it to us.
void Service::open(Arrival arrival) {
  const auto tombstone = tombstones_.find(arrival.flow);
  if (tombstone && tombstone->generation == ntohl(arrival.commit.generation)) {
    if (tombstone->state == abi::TOMB_OPENING) return go_on(std::move(arrival));
    if (tombstone->state != abi::TOMB_ANNOUNCED)
      return answer_again(arrival.flow, *tombstone, arrival.commit, arrival.from);
  }
  departures_.comes_back(arrival.flow);
  // While it is announced only: from the claim on a socket is no longer known to be of an earlier connection.
  if (const auto busy = end_old_socket(diag_, tombstones_, arrival, counters_))
    return refuse_unopened(arrival.flow, arrival.commit, arrival.from, *busy);
  const bool whole = by_program(ntohs(arrival.commit.target_port));
  const auto claimed =
      tombstones_.claim(arrival.flow, arrival.commit, whole ? 0 : Openings::paced(arrival));
  switch (claimed.what) {
    case abi::TOMBSTONE_DONE:
      return open_claimed(std::move(arrival));
    case abi::TOMBSTONE_OLD:  // forbidden meanwhile
      return answer_again(arrival.flow, claimed.now, arrival.commit, arrival.from);
    default:
      return answers_.refused(arrival.commit, arrival.from, abi::REASON_TOMBSTONES_FULL);
  }
}

/// A former run began it, and a child may be there.
void Service::go_on(Arrival arrival) {
  const Opened opened = opened_here(arrival);
  // one that is handed over is whole before it is given away
  if (!by_program(ntohs(arrival.commit.target_port)))
    openings_.take_up(std::move(arrival), Clock::now());
  look_for_child(opened);
}

void Service::open_claimed(Arrival arrival) {
  const Opened opened = opened_here(arrival);
  openings_.forget(opened.flow, ntohl(arrival.commit.generation));
  handoffs_.forget(opened.flow);
  unconfirmed_.erase(opened.flow);
  if (by_program(ntohs(arrival.commit.target_port))) {
    if (const auto refusal = handoffs_.open(opened, std::move(arrival)))
      return refuse(opened, *refusal);
    return;
  }
  std::optional<Refusal> refusal;
  try {
    refusal = openings_.open(std::move(arrival), Clock::now());
  } catch (const std::system_error& error) {
    refusal = {abi::REASON_KERNEL_REFUSED, static_cast<std::uint32_t>(error.code().value())};
  }
  if (refusal) return refuse(opened, *refusal);
  look_for_child(opened);
}

void Service::look_for_child(const Opened& opened) { confirmations_.look(opened, Clock::now()); }

void Service::child_found(const Opened& opened) {
  const TimePoint now = Clock::now();
  const control::Generation generation = ntohl(opened.question.generation);
  const auto tombstone = tombstones_.find(opened.flow);
  // It was looked for long enough for the next transfer of the four-tuple to come: this is the next one's child.
  if (tombstone && control::newer(tombstone->generation, generation))
    return answer_again(opened.flow, *tombstone, opened.question, opened.from);
  if (!openings_.begin(opened.flow, generation, now)) {
    unconfirmed_.erase(opened.flow);
    if (!tombstone || !flows_.end_if_cut_short(opened.flow, *tombstone, now))
      return confirm(opened);
    return refuse(opened, {abi::REASON_KERNEL_REFUSED, 0});
  }
  unconfirmed_.insert_or_assign(opened.flow, opened);
  openings_.run(now);
}

void Service::child_absent(const Opened& opened, bool backlog_full) {
  openings_.forget(opened.flow, ntohl(opened.question.generation));
  refuse(opened, {backlog_full ? abi::REASON_BACKLOG_FULL : abi::REASON_KERNEL_REFUSED, 0});
}

/// The child exists: tombstone first (from now on the kernel may answer for this flow), then the word, then what was held.
void Service::confirm(const Opened& opened) {
  const control::Generation generation = ntohl(opened.question.generation);
  const auto settled = tombstones_.settle(opened.flow, generation, abi::TOMB_CONFIRMED);
  const TimePoint now = Clock::now();
  if (settled.now.generation == generation)
    flows_.opened(opened.flow, {.generation = generation,
                                .target_port = settled.now.target_port,
                                .unsettled = false,
                                .opened = now,
                                .renewed = now});
  answers_.resumed(opened.question, opened.from, opened.stamps);
  ++counters_.confirmed;
  orphans_.forget(opened.flow);
  for (const Bytes& late : departures_.take_late(opened.flow))
    ++(give_segment(opened.flow, settled.now, late, true) ? counters_.late_segments
                                                          : counters_.late_segments_dropped);
  if (!openings_.has(opened.flow)) replay(opened.flow);
}

void Service::refuse(const Opened& opened, Refusal refusal) {
  const control::Generation generation = ntohl(opened.question.generation);
  const bool abort = opened.question.type == abi::WIRE_ABORT;
  const auto settled = tombstones_.settle(
      opened.flow, generation, abort ? abi::TOMB_ABORTED : abi::TOMB_REFUSED,
      static_cast<std::uint8_t>(refusal.reason), static_cast<std::uint16_t>(refusal.detail));
  if (settled.what != abi::TOMBSTONE_ABSENT)
    flows_.settled(opened.flow, generation, Clock::now(), true);
  if (abort)
    answers_.aborted(opened.question, opened.from);
  else
    answers_.refused(opened.question, opened.from, refusal.reason, refusal.detail,
                     settled.now.generation);
  hand_back(opened.flow, opened.question, opened.from);
}

/// Before it is opened. A refusal is final for its generation: the tombstone says so first, so that a late repeat is answered alike
/// and never opened, when the dispatcher has long gone to another server.
void Service::refuse_unopened(const abi::flow_key& flow, const abi::wire_header& commit,
                              const sys::Endpoint& from, Refusal refusal) {
  const auto claimed = tombstones_.claim(flow, commit, 0);
  switch (claimed.what) {
    case abi::TOMBSTONE_DONE:
      return refuse({flow, commit, from, {}, Clock::now()}, refusal);
    case abi::TOMBSTONE_OLD:
      return answer_again(flow, claimed.now, commit, from);
    default:
      return answers_.refused(commit, from, abi::REASON_TOMBSTONES_FULL);
  }
}

/// What was answered to this generation before, again.
void Service::answer_again(const abi::flow_key& flow, const abi::tombstone& tombstone,
                           const abi::wire_header& question, const sys::Endpoint& from) {
  const control::Generation generation = ntohl(question.generation);
  const bool abort = question.type == abi::WIRE_ABORT;
  ++counters_.answered_again;
  if (control::newer(tombstone.generation, generation)) {
    if (abort) return answers_.aborted(question, from);
    return answers_.refused(question, from, abi::REASON_STALE_GENERATION, 0, tombstone.generation);
  }
  switch (tombstone.state) {
    case abi::TOMB_CONFIRMED:
      return answers_.resumed(question, from, {question.switch_ns, 0, 0});
    case abi::TOMB_OPENING: {
      if (confirmations_.ask(flow, question, from) || handoffs_.ask(flow, question, from)) return;
      Opened opened{flow, question, from, {question.switch_ns, 0, 0}, Clock::now()};
      opened.question.target_port = htons(tombstone.target_port);
      const auto delivering = unconfirmed_.find(flow);
      if (delivering == unconfirmed_.end() ||
          delivering->second.question.generation != question.generation)
        return look_for_child(opened);
      opened.stamps = delivering->second.stamps;
      opened.when = delivering->second.when;
      delivering->second = opened;
      if (!abort) return;  // answered when all is delivered
      unconfirmed_.erase(delivering);
      return confirm(opened);  // it is open: too late to abort
    }
    case abi::TOMB_ABORTED:
    case abi::TOMB_REFUSED:
      if (abort) return answers_.aborted(question, from);
      return answers_.refused(question, from,
                              tombstone.state == abi::TOMB_ABORTED
                                  ? abi::REASON_ABORTED
                                  : static_cast<abi::wire_reason>(tombstone.reason),
                              tombstone.detail, tombstone.generation);
    default:
      return;  // announced: the answer comes when it has been opened; or being swept
  }
}

void Service::delivered(const abi::flow_key& flow) {
  const auto opened = unconfirmed_.extract(flow);
  if (opened.empty()) return replay(flow);  // told earlier
  confirm(opened.mapped());
}

/// What was held for a connection that does not come, and what still comes of it.
void Service::hand_back(const abi::flow_key& flow, const abi::wire_header& question,
                        const sys::Endpoint& from) {
  hand_backs_.refused(flow, question, from, Clock::now());
  for (const Bytes& packet : held_.take(flow)) hand_back_packet(flow, packet);
}

bool Service::hand_back_packet(const abi::flow_key& flow, const Bytes& packet) {
  const auto stray = parse_stray(packet);
  const auto tombstone = tombstones_.find(flow);
  return stray && tombstone &&
         hand_backs_.give(flow, tombstone->target_port, std::span(packet).subspan(stray->tcp),
                          Clock::now());
}

void Service::replay(const abi::flow_key& flow) {
  for (const Bytes& packet : held_.take(flow)) {
    openings_.inject(packet);
    ++counters_.replayed;
  }
}

}  // namespace tcpmig::agent
