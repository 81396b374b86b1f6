// SPDX-License-Identifier: MIT
// The service's way from a transfer to its answer.
#include <arpa/inet.h>
#include <endian.h>

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
  for (const abi::node_event& event : programs_.take_events()) on_event(event);
}

void Service::on_event(const abi::node_event& event) {
  const sys::Endpoint from{sys::Address(event.from), ntohs(event.from_port)};
  const auto reason = static_cast<abi::wire_reason>(event.reason);
  switch (static_cast<abi::node_event_type>(event.type)) {
    case abi::EVENT_OPENED:
      look_for_child(opened_by_program(event));
      return;
    case abi::EVENT_REFUSED:
      if (reason == abi::REASON_KERNEL_REFUSED)  // after the claim: there is a tombstone
        flows_.settled(event.flow, ntohl(event.header.generation), Clock::now());
      answers_.refused(event.header, from, reason, event.detail);
      return;
    case abi::EVENT_DUPLICATE:
      if (const auto tombstone = tombstones_.find(event.flow))
        answer_again(event.flow, *tombstone, event.header, from);
      return;
    case abi::EVENT_BUSY:  // the datagram itself is on its way to our socket
      return;
    case abi::EVENT_STRAY_SYN:
      flows_.stray_syn(event.flow, Clock::now());
      return;
  }
}

/// Parts are whole, or the tc program left it to us.
void Service::open(Arrival arrival) {
  const Opened opened = opened_here(arrival);
  const std::uint16_t port = ntohs(arrival.commit.target_port);
  const auto tombstone = tombstones_.find(arrival.flow);
  std::optional<Refusal> refusal;
  if (tombstone && tombstone->generation == ntohl(arrival.commit.generation)) {
    openings_.take_up(std::move(arrival), Clock::now());  // a former run began it
  } else if (handoffs_.serves(port)) {
    refusal = handoffs_.open(arrival);
    if (!refusal) {
      openings_.inject_end(arrival);  // repair mode restores no FIN
      return confirm(opened);
    }
  } else {
    refusal = openings_.open(std::move(arrival), Clock::now());
  }
  if (refusal) return refuse(opened, *refusal);
  look_for_child(opened);
}

void Service::look_for_child(const Opened& opened) { confirmations_.look(opened, Clock::now()); }

void Service::child_found(const Opened& opened) {
  const TimePoint now = Clock::now();
  if (!openings_.begin(opened.flow, now)) return confirm(opened);
  unconfirmed_.insert_or_assign(opened.flow, opened);
  openings_.run(now);
}

void Service::child_absent(const Opened& opened) {
  openings_.forget(opened.flow);
  const auto local = local_of(opened.flow, ntohs(opened.question.target_port));
  refuse(opened,
         {backlog_full(diag_, local) ? abi::REASON_BACKLOG_FULL : abi::REASON_KERNEL_REFUSED, 0});
}

/// The child exists: tombstone first (from now on the kernel may answer for this flow), then the word, then what was held.
void Service::confirm(const Opened& opened) {
  const control::Generation generation = ntohl(opened.question.generation);
  const auto settled = tombstones_.settle(opened.flow, generation, abi::TOMB_CONFIRMED);
  const TimePoint now = Clock::now();
  flows_.opened(opened.flow, {.generation = generation,
                              .snd_nxt = settled.now.snd_nxt,
                              .target_port = settled.now.target_port,
                              .census = 0,
                              .unsettled = false,
                              .opened = now,
                              .renewed = now});
  answers_.resumed(opened.question, opened.from, opened.stamps);
  ++counters_.confirmed;
  if (!openings_.has(opened.flow)) replay(opened.flow);
}

void Service::refuse(const Opened& opened, Refusal refusal) {
  const control::Generation generation = ntohl(opened.question.generation);
  const bool abort = opened.question.type == abi::WIRE_ABORT;
  const auto settled = tombstones_.settle(
      opened.flow, generation, abort ? abi::TOMB_ABORTED : abi::TOMB_REFUSED,
      static_cast<std::uint8_t>(refusal.reason), static_cast<std::uint16_t>(refusal.detail));
  if (settled.what != abi::TOMBSTONE_ABSENT) flows_.settled(opened.flow, generation, Clock::now());
  if (abort)
    answers_.aborted(opened.question, opened.from);
  else
    answers_.refused(opened.question, opened.from, refusal.reason, refusal.detail,
                     settled.now.generation);
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
      if (confirmations_.ask(flow, question, from)) return;
      Opened opened{flow, question, from, {question.switch_ns, 0, 0}, Clock::now()};
      opened.question.target_port = htons(tombstone.target_port);
      const auto delivering = unconfirmed_.find(flow);
      if (delivering == unconfirmed_.end()) return look_for_child(opened);
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
      return;  // being swept
  }
}

void Service::delivered(const abi::flow_key& flow) {
  const auto opened = unconfirmed_.extract(flow);
  if (opened.empty()) return replay(flow);  // told earlier
  confirm(opened.mapped());
}

void Service::replay(const abi::flow_key& flow) {
  for (const Bytes& packet : held_.take(flow)) {
    openings_.inject(packet);
    ++counters_.replayed;
  }
}

}  // namespace tcpmig::agent
