// SPDX-License-Identifier: MIT
// A server's agent, as src/agent: what it does with transfers, with packets that have no connection, and when it is killed.
#include <arpa/inet.h>

#include <array>
#include <span>
#include <utility>

#include "sim/server.hpp"

namespace tcpmig::sim {
namespace {

constexpr std::uint16_t kPort = 80;
constexpr Millis kAssemblyTick = 6;

/// For the model there is one flow.
abi::flow_key the_flow() { return {}; }

abi::wire_header header_of(const Message& message) {
  abi::wire_header header{};
  header.type = message.type;
  if (message.whole) header.flags = abi::WIRE_FLAG_WHOLE;
  header.sender = htons(message.sender);
  header.generation = htonl(message.generation);
  header.target_port = htons(kPort);
  header.part = htons(message.part);
  header.parts = htons(message.parts);
  header.total_length = htonl(message.length);
  return header;
}

}  // namespace

// ---- transfers

/// The programs write it down whether anybody reads or not.
void Server::event(const Event& event) {
  ring_.push_back(event);
  soon(1, [this] {
    for (const Event& next : std::exchange(ring_, {})) take_event(next);
  });
}

void Server::take_event(const Event& event) {
  switch (event.kind) {
    case Kind::kOpened:
      return look_for_child(event.message);
    case Kind::kRefused:
      tell(event.message, abi::WIRE_REFUSED, abi::REASON_NO_LISTENER);
      return hand_back(event.message);
    case Kind::kDuplicate:
      return answer_again(event.message);
  }
}

void Server::on_part(const Message& message) {
  const bool commit = message.type == abi::WIRE_COMMIT;
  const bool known = state_ != State::kNone && !control::newer(message.generation, known_);
  // Announced and not yet opened; or a former run did not get to the end of several parts.
  const bool unfinished =
      known && known_ == message.generation &&
      (state_ == State::kAnnounced ||
       (state_ == State::kOpening && message.parts > 1 && !(child_ && child_->in_agent)));
  if (known && !unfinished) {
    if (commit) answer_again(message);
    return;
  }
  if (message.whole && !listens_) {
    if (commit) refuse_unopened(message, abi::REASON_NO_HANDOFF);
    return;
  }
  assemble(message);
}

void Server::assemble(const Message& message) {
  const auto text = message.data.view();
  const auto arrival = assembly_->add(
      the_flow(), {header_of(message), std::as_bytes(std::span(text.data(), text.size()))}, {},
      at(network_.now()));
  if (!arrival || !*arrival) {
    for (const Millis when : {kAssemblyTick, 2 * kAssemblyTick, kTransfer + 1})
      soon(when, [this] { assembly_tick(); });
    return;
  }
  Letters received;
  for (const std::byte byte : (*arrival)->received) received.append(static_cast<char>(byte));
  Message commit = message;
  commit.sender = ntohs((*arrival)->commit.sender);
  open_whole(commit, received);
}

void Server::assembly_tick() {
  for (const auto& gap : assembly_->gaps(at(network_.now()))) {
    Message answer{.type = abi::WIRE_MISSING,
                   .sender = node_,
                   .target = ntohs(gap.commit.sender),
                   .generation = ntohl(gap.commit.generation)};
    for (const std::uint16_t part : gap.missing)
      answer.missing = static_cast<std::uint8_t>(answer.missing | 1U << part);
    if (!network_.mutated(Mutation::kNothingMissing)) network_.to_node(answer);
  }
  for (const auto& gap : assembly_->expire(at(network_.now())))
    refuse_unopened({.type = abi::WIRE_COMMIT,
                     .sender = ntohs(gap.commit.sender),
                     .generation = ntohl(gap.commit.generation)},
                    abi::REASON_INCOMPLETE);
}

/// Its parts are together.
void Server::open_whole(const Message& commit, const Letters& received) {
  if (known_ == commit.generation && state_ == State::kOpening) return look_for_child(commit);
  if (child_) lose_child();  // of an earlier connection
  if (!may_follow(commit.generation, State::kOpening)) return answer_again(commit);
  claim(commit.generation, State::kOpening);
  if (!listens_) return refuse(commit, abi::REASON_NO_LISTENER);
  open(commit, received);
  if (!commit.whole) return look_for_child(commit);
  soon(1, [this, commit, life = child_->life] {  // its program has taken it
    if (!child_ || child_->life != life) return;
    acknowledge();  // its first word
    application_takes(life, false);
    confirm(commit);
  });
}

void Server::look_for_child(const Message& question) {
  if (control::newer(known_, question.generation)) return answer_again(question);
  if (child_ && child_->in_agent) return;  // answered when its program has it
  if (child_ && generations_.back() == question.generation) return confirm(question);
  refuse(question, abi::REASON_KERNEL_REFUSED);
}

/// The child exists: tombstone first, then the word, then what was held.
void Server::confirm(const Message& question) {
  if (known_ == question.generation && state_ == State::kOpening) state_ = State::kConfirmed;
  if (network_.now() < announcing_until_) renew();
  tell(question, abi::WIRE_RESUMED);
  stray_.reset();
  for (const ClientSegment& segment : std::exchange(held_, {})) receives(segment);
}

void Server::refuse(const Message& question, std::uint8_t reason) {
  if (known_ == question.generation && state_ == State::kOpening) {
    state_ = State::kRefused;
    reason_ = reason;
  }
  const bool abort = question.type == abi::WIRE_ABORT;
  tell(question, abort ? abi::WIRE_ABORTED : abi::WIRE_REFUSED, reason);
  hand_back(question);
}

void Server::refuse_unopened(const Message& question, std::uint8_t reason) {
  if (!may_follow(question.generation, State::kOpening)) return answer_again(question);
  claim(question.generation, State::kOpening);
  refuse(question, reason);
}

/// What was answered to this generation before, again.
void Server::answer_again(const Message& question) {
  const bool abort = question.type == abi::WIRE_ABORT;
  if (state_ == State::kNone || control::newer(known_, question.generation))
    return abort ? tell(question, abi::WIRE_ABORTED)
                 : tell(question, abi::WIRE_REFUSED, abi::REASON_STALE_GENERATION);
  switch (state_) {
    case State::kConfirmed:
      return tell(question, abi::WIRE_RESUMED);
    case State::kOpening:
      return look_for_child(question);
    case State::kAborted:
    case State::kRefused:
      return abort ? tell(question, abi::WIRE_ABORTED)
                   : tell(question, abi::WIRE_REFUSED,
                          state_ == State::kAborted ? std::uint8_t{abi::REASON_ABORTED} : reason_);
    case State::kAnnounced:  // the answer comes when it has been opened
    case State::kNone:
      return;
  }
}

/// To the switch what there is to say is said in its own words.
void Server::tell(const Message& question, std::uint8_t type, std::uint8_t reason) {
  Message answer{.type = type,
                 .reason = reason,
                 .sender = node_,
                 .target = question.sender,
                 .generation = question.generation};
  if (question.sender != kSwitch) return network_.to_node(answer);
  if (type == abi::WIRE_REFUSED) return;
  answer.type = type == abi::WIRE_RESUMED ? abi::WIRE_RENEW : abi::WIRE_GONE;
  network_.to_switch(answer);
}

void Server::on_abort(const Message& message) {
  assembly_->drop(the_flow(), message.generation);
  if (!may_follow(message.generation, State::kAborted)) return answer_again(message);
  claim(message.generation, State::kAborted);
  tell(message, abi::WIRE_ABORTED);
  hand_back(message);
}

/// Captured by a former owner.
void Server::on_segment(const Message& message) {
  if (known_ != message.generation || !child_) return;
  receives({message.seq, message.data, child_->delivered});
}

/// The flow has gone on to another owner, or the switch knows nothing of it.
void Server::on_revoked(std::uint32_t current) {
  if (state_ == State::kNone || record_) return;
  if (current == 0) return renew();
  if (child_ && control::newer(current, known_)) lose_child();
}

// ---- packets without a connection

void Server::hand_back(const Message& question) {
  if (question.sender != kSwitch) former_ = Former{question, network_.now() + kTransfer};
  for (const ClientSegment& segment : std::exchange(held_, {})) give_back(segment);
}

/// False: nobody wants it (any more).
bool Server::give_back(const ClientSegment& segment) {
  if (!former_ || network_.now() >= former_->until) return false;
  if (segment.data.empty() || network_.mutated(Mutation::kHandedBackDropped)) return true;
  network_.to_node({.type = abi::WIRE_SEGMENT,
                    .sender = node_,
                    .target = former_->question.sender,
                    .generation = former_->question.generation,
                    .data = segment.data,
                    .seq = segment.seq});
  return true;
}

/// Never silence for ever: what keeps coming, and no connection does, is answered in the end.
bool Server::is_overdue(const ClientSegment& segment) {
  if (!stray_ || stray_->first != segment.seq) stray_ = {segment.seq, network_.now()};
  return network_.now() - stray_->second > 2 * kTransfer + kHold;
}

void Server::on_stray(const ClientSegment& segment) {
  const bool assembling = assembly_->has(the_flow());
  if (state_ == State::kConfirmed && left_ && network_.now() < left_->until)
    return network_.to_node({.type = abi::WIRE_SEGMENT,
                             .sender = node_,
                             .target = left_->owner,
                             .generation = left_->generation,
                             .data = segment.data,
                             .seq = segment.seq});
  if (!assembling && (state_ == State::kRefused || state_ == State::kAborted) && give_back(segment))
    return;
  const bool pending = assembling || state_ == State::kOpening;
  if (!pending && state_ != State::kConfirmed && is_overdue(segment)) return reset(segment);
  hold(segment);
}

void Server::hold(const ClientSegment& segment) {
  const Millis time = network_.mutated(Mutation::kShortHold) ? 0 : kHold;
  if (held_.empty())
    soon(time, [this, batch = ++batches_] {
      if (batch == batches_) expire_hold();
    });
  held_.push_back(segment);
}

/// A connection has ended here, and none has come after it: the kernel answers. Else the client sends them again.
void Server::expire_hold() {
  for (const ClientSegment& segment : std::exchange(held_, {}))
    if (state_ == State::kConfirmed) reset(segment);
}

// ---- its own life

void Server::kill_agent() {
  if (!up_) return;
  up_ = false;
  ++run_;
  held_.clear();
  stray_.reset();
  former_.reset();
  left_.reset();
  announcing_until_ = 0;
  assembly_ = std::make_unique<agent::Assembly>(std::chrono::milliseconds(kTransfer));
  if (departure_) {
    departure_->kill();
    departed_.push_back(std::move(departure_));
  }
  if (child_ && child_->in_agent) lose_child();  // in repair: without a packet
  constexpr std::array<Millis, 3> kDown{20, 3'000, 15'000};
  network_.after(kDown.at(network_.chooser().sequel(3)), [this] { restart_agent(); });
}

void Server::restart_agent() {
  up_ = true;
  boot_ = network_.boot();
  if (network_.mutated(Mutation::kTombstonesLost)) state_ = State::kNone;
  soon(1, [this] {
    for (const Event& next : std::exchange(ring_, {})) take_event(next);
  });
  soon(2, [this] { census(); });
  if (record_)  // its program asks what has become of its connection
    soon(10, [this] {
      if (!record_) return;
      if (record_->moved || !child_) {
        lose_child();
        return record_.reset();
      }
      departure_ = std::make_unique<Departure>(network_, *this, node_);
      departure_->go_on(*record_);
    });
}

/// Given away, by this run or by a former one: whose it is, is not known.
bool Server::is_leaving() const {
  return record_ && !network_.mutated(Mutation::kLeavingAnnounced);
}

/// What a former run had opened, or had not got to: whether the sockets live.
void Server::census() {
  if (state_ != State::kConfirmed && state_ != State::kOpening) return;
  if (child_) {
    if (is_leaving()) return;
    network_.to_switch({.type = abi::WIRE_RENEW, .sender = node_, .generation = known_});
    soon(2 * kTransfer, [this, generation = known_] {
      if (known_ == generation && state_ == State::kOpening && child_) state_ = State::kConfirmed;
    });
    return;
  }
  if (state_ == State::kOpening) {
    state_ = State::kRefused;
    reason_ = abi::REASON_ABORTED;
  }
  network_.to_switch({.type = abi::WIRE_GONE, .sender = node_, .generation = known_});
}

/// The switch has lost its table: several times, for a datagram may be lost.
void Server::hears_boot(std::uint32_t boot) {
  if (!up_ || boot == boot_) return;
  boot_ = boot;
  if (departure_) departure_->hears_boot(boot);
  announcing_until_ = network_.now() + kTransfer;
  for (const Millis when : {0, 250, 750, 1'750}) soon(when, [this] { renew(); });
}

void Server::renew() {
  if (!child_ || state_ != State::kConfirmed || is_leaving() ||
      network_.mutated(Mutation::kNothingAnnounced))
    return;
  network_.to_switch({.type = abi::WIRE_RENEW, .sender = node_, .generation = known_});
}

}  // namespace tcpmig::sim
