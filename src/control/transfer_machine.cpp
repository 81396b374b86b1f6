// SPDX-License-Identifier: MIT
#include "control/transfer_machine.hpp"

#include <arpa/inet.h>

#include <algorithm>

namespace tcpmig::control {
namespace {

constexpr unsigned kMaxStale = 3;
constexpr unsigned kMostBelow = 16;  // take-backs below what was offered

TransferEvent refusal_of_switch(std::uint8_t reason) {
  switch (reason) {
    case abi::REASON_ALREADY_SPOKE:
      return TransferEvent::kSpoke;
    case abi::REASON_STALE_GENERATION:
      return TransferEvent::kStale;
    case abi::REASON_NOT_ENTITLED:
      return TransferEvent::kNotEntitled;
    case abi::REASON_TABLE_FULL:
      return TransferEvent::kFull;
    case abi::REASON_REPLAY:
      return TransferEvent::kReplay;
    case abi::REASON_OTHER_BOOT:
      return TransferEvent::kOtherBoot;
    default:
      return TransferEvent::kUnknown;
  }
}

bool is_refusal_of_switch(TransferEvent event) {
  return event == TransferEvent::kStale || event == TransferEvent::kNotEntitled ||
         event == TransferEvent::kFull || event == TransferEvent::kUnknown;
}

std::optional<TransferEvent> event_of(const abi::wire_header& answer) {
  const bool by_switch = answer.sender == 0;
  switch (answer.type) {
    case abi::WIRE_RESUMED:
      return by_switch ? TransferEvent::kTakenBack : TransferEvent::kResumed;
    case abi::WIRE_REFUSED:
      return by_switch ? refusal_of_switch(answer.reason) : TransferEvent::kRefused;
    case abi::WIRE_ABORTED:
      return TransferEvent::kAborted;
    case abi::WIRE_MISSING:
      return TransferEvent::kMissing;
    default:
      return std::nullopt;
  }
}

}  // namespace

void TransferMachine::start(Candidate first, TimePoint now) { offer(first, now); }

void TransferMachine::go_on(const Attempt& offered, Generation newest, TimePoint now) {
  tried_.insert(offered.server.index);
  attempts_.push_back(offered);
  generation_ = first_ = offered.generation;
  note_used(newest);
  if (newest != offered.generation) take_backs_.insert(newest);
  unsettled_ = 1;
  driver_.abort(offered);
  enter(TransferState::kAborting, now);
}

bool TransferMachine::receive(const abi::wire_header& answer, std::span<const std::byte> payload,
                              TimePoint now) {
  const auto event = event_of(answer);
  const bool expected =
      ntohl(answer.generation) == generation_ &&
      (answer.sender == 0 || ntohs(answer.sender) == attempts_.back().server.node);
  if (over() || !expected || !event) return false;
  handle(*event, answer, payload, now);
  return true;
}

void TransferMachine::tick(TimePoint now) {
  if (over()) return;
  if (now >= deadline_)
    handle(TransferEvent::kDeadline, {}, {}, now);
  else if (now >= repeat_at_)
    handle(TransferEvent::kRepeat, {}, {}, now);
}

TransferMachine::TimePoint TransferMachine::due() const noexcept {
  return over() ? TimePoint::max() : std::min(deadline_, repeat_at_);
}

void TransferMachine::handle(TransferEvent event, const abi::wire_header& answer,
                             std::span<const std::byte> payload, TimePoint now) {
  const Generation known = ntohl(answer.current_generation);
  // the only COMMIT that there was has been refused by the switch: nothing has happened
  if (is_refusal_of_switch(event) && unsettled_ == 1) unsettled_ = 0;
  switch (transfer_step(state_, event)) {
    case TransferStep::kNothing:
      return;
    case TransferStep::kMove:
      return moved(answer);
    case TransferStep::kNext:
      return event == TransferEvent::kAborted && asked_ ? again(now) : next_server(now);
    case TransferStep::kGiveUp:
      return take_back(Failure::kCannotMove, next_generation(generation_), now);
    case TransferStep::kNoAnswer:
      return take_back(Failure::kNoAnswer, next_generation(generation_), now);
    case TransferStep::kRenumber:
      return renumber(answer, now);
    case TransferStep::kResend:
      return resend(payload);
    case TransferStep::kRepeat:
    case TransferStep::kAbortAgain:
      return repeat(now);
    case TransferStep::kSilence:
      return silence(now);
    case TransferStep::kAsk:
      return ask(now);
    case TransferStep::kLeave:
      return leave();
    case TransferStep::kEnd:
      return driver_.boot_changed() ? leave() : returned(false);
    case TransferStep::kReturn:
      return event == TransferEvent::kTakenBack ? taken_back(now) : returned(false);
    case TransferStep::kJudge:  // no entry (0), or an older one: our first COMMIT was never applied
      return known == 0 || newer(attempts_.front().generation, known) ? returned(false)
                                                                      : moved(answer);
  }
}

void TransferMachine::enter(TransferState state, TimePoint now) {
  state_ = state;
  deadline_ = now + rules_.transfer;
  delay_ = rules_.retry;
  repeat_at_ = now + delay_;
}

void TransferMachine::note_used(Generation generation) {
  if (!newest_ || newer(generation, *newest_)) newest_ = generation;
}

void TransferMachine::offer(Candidate server, TimePoint now) {
  tried_.insert(server.index);
  if (unsettled_++ == 0) first_ = generation_;
  attempts_.push_back({generation_, server});
  note_used(generation_);
  enter(TransferState::kOffered, now);
  if (attempts_.size() == 1) repeat_at_ = now + (delay_ = rules_.first_retry.value_or(delay_));
  driver_.offer(attempts_.back());
}

void TransferMachine::next_server(TimePoint now) {
  if (!left_silent_ && driver_.boot_changed()) driver_.follow_boot();  // all before are settled
  const auto server = driver_.next(tried_);
  const Generation generation = next_generation(generation_);
  if (!server) return take_back(Failure::kNoServer, generation, now);
  generation_ = generation;
  driver_.note(TransferDriver::Note::kNextServer);
  offer(*server, now);
}

void TransferMachine::silence(TimePoint now) {
  driver_.note(TransferDriver::Note::kSilent);
  driver_.abort(attempts_.back());
  if (rules_.idempotent && !driver_.boot_changed()) {
    left_silent_ = true;
    driver_.note(TransferDriver::Note::kRetriedOnSilence);
    return next_server(now);
  }
  enter(TransferState::kAborting, now);
}

/// What a former attempt has come to cannot be found out any more, and the switch could not keep two owners apart.
void TransferMachine::ask(TimePoint now) {
  if (left_silent_) return leave();
  asked_ = true;
  driver_.abort(attempts_.back());
  enter(TransferState::kAborting, now);
}

/// It was never opened, and the server has done nothing wrong.
void TransferMachine::again(TimePoint now) {
  asked_ = false;
  driver_.follow_boot();
  generation_ = next_generation(generation_);
  offer(attempts_.back().server, now);
}

void TransferMachine::leave() {
  if (!left_silent_ && failure_ == Failure::kNoServer) return returned(false);
  driver_.note(TransferDriver::Note::kLeft);
  owner_ = attempts_.back();
  state_ = TransferState::kMoved;
}

void TransferMachine::take_back(Failure why, Generation generation, TimePoint now) {
  failure_ = why;
  generation_ = generation;
  take_backs_.insert(generation_);
  note_used(generation_);
  if (unsettled_++ == 0) first_ = generation_;
  enter(TransferState::kTakingBack, now);
  driver_.take_back(generation_);
}

/// Ours again, but a COMMIT with a newer number may still be on its way, and the switch would take it from its owner: us. Above
/// that one, it is stale.
void TransferMachine::taken_back(TimePoint now) {
  if (newer(*newest_, generation_)) return take_back(failure_, next_generation(generation_), now);
  returned(true);
}

/// Somebody else has moved the flow, or the clocks of two dispatchers differ. Bounded, or the two would play ping-pong.
///
/// That holds for the only COMMIT that there was. Of several, the switch may have seen only the first ones, or none: where the last that
/// it knows is ours, it is taken back just above that, if it has not spoken. Otherwise an earlier one was applied and the flow has
/// ended since, its port perhaps in use again: above that generation the request would be executed once more.
void TransferMachine::renumber(const abi::wire_header& answer, TimePoint now) {
  const Generation known = ntohl(answer.current_generation);
  const bool taking_back = state_ == TransferState::kTakingBack;
  if (unsettled_ > 0) {
    const Generation next = next_generation(known);
    const bool ours = rules_.owned == known || take_backs_.contains(known) ||
                      std::ranges::find(attempts_, known, &Attempt::generation) != attempts_.end();
    const bool untried = taking_back ? generation_ != next : newer(generation_, next);
    if (!ours || !untried) return moved(answer);
    if (++stale_ > kMostBelow) return;  // until the deadline
    return take_back(taking_back ? failure_ : Failure::kCannotMove, next, now);
  }
  if (++stale_ > kMaxStale) {
    if (!taking_back) take_back(Failure::kCannotMove, next_generation(generation_), now);
    return;  // taking back: until the deadline
  }
  if (taking_back) return take_back(failure_, next_generation(known), now);
  generation_ = next_generation(known);
  offer(attempts_.back().server, now);
}

void TransferMachine::repeat(TimePoint now) {
  if (state_ == TransferState::kAborting) {
    driver_.abort(attempts_.back());
  } else {
    ++unsettled_;
    driver_.note(TransferDriver::Note::kRepeated);
    driver_.repeat();
  }
  delay_ *= 2;
  repeat_at_ = now + delay_;
}

/// `parts`: be16 numbers.
void TransferMachine::resend(std::span<const std::byte> parts) {
  for (std::size_t i = 0; i + 2 <= parts.size(); i += 2)
    driver_.resend(static_cast<std::uint16_t>(std::to_integer<unsigned>(parts[i]) << 8 |
                                              std::to_integer<unsigned>(parts[i + 1])));
}

/// "Already spoke" names the generation that has spoken: it need not be the present attempt's, nor the one before (a
/// silent switch may have seen only the first of several).
void TransferMachine::moved(const abi::wire_header& answer) {
  owner_ = attempts_.back();
  if (answer.type == abi::WIRE_REFUSED)
    for (const Attempt& attempt : attempts_)
      if (attempt.generation == ntohl(answer.current_generation)) owner_ = attempt;
  state_ = TransferState::kMoved;
}

void TransferMachine::returned(bool confirmed) {
  if (confirmed) driver_.note(TransferDriver::Note::kTakenBack);
  state_ = TransferState::kReturned;
}

}  // namespace tcpmig::control
