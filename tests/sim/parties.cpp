// SPDX-License-Identifier: MIT
#include "sim/parties.hpp"

#include <arpa/inet.h>

#include <algorithm>

#include "sim/switch_host.h"

namespace tcpmig::sim {
namespace {

constexpr std::uint8_t kAck = 16;
constexpr unsigned kParts = 3;  // of an answer
constexpr unsigned kTries = 8;  // of a retransmission: 200 ms, doubling: 51 s
constexpr control::Generation kFirst = 1000;

}  // namespace

void Retransmission::start(unsigned times, std::function<bool()> send,
                           std::function<void()> given_up) {
  step(times, 200, send, given_up);
}

void Retransmission::step(unsigned left, Millis delay, const std::function<bool()>& send,
                          const std::function<void()>& given_up) {
  if (!send()) return;
  if (left == 0) {
    if (given_up) given_up();
    return;
  }
  network_.after(
      delay, [this, left, delay, send, given_up] { step(left - 1, 2 * delay, send, given_up); });
}

// ---- the client

void Client::connect() {
  network_.from_client(2, 0);  // SYN: the switch binds the connection to its dispatcher
  pieces_ = network_.chooser().pick(3);
  const Millis first = network_.chooser().pick(4) * 2;
  if (pieces_ > 0)
    network_.after(first, [this] {
      retransmission_.start(kTries, [this] {
        if (end_ != End::kNone || acknowledged_ >= pieces_) return false;
        network_.from_client(kAck, acknowledged_ + 1);
        return true;
      });
    });
  // A client that waits asks at some time whether the other side is still there (RFC 9293, 3.8.4).
  for (const Millis probe : {30'000, 60'000, 90'000, 120'000, 150'000, 180'000, 210'000, 240'000})
    network_.after(probe, [this] {
      if (end_ == End::kNone) network_.from_client(kAck, 0);
    });
}

void Client::receives(const Segment& segment) {
  if (end_ != End::kNone) return;
  if (segment.acknowledged > acknowledged_) {
    acknowledged_ = segment.acknowledged;
    if (acknowledged_ < pieces_) network_.from_client(kAck, acknowledged_ + 1);
  }
  if (segment.reset) {
    end_ = End::kReset;
    return;
  }
  if (segment.parts != 0) {
    const std::pair from{segment.node, segment.life};
    if (speaker_ && *speaker_ != from) violation_ = "an answer is mixed of two speakers";
    speaker_ = from;
    parts_.insert(segment.part);
    network_.from_client(kAck, 0, static_cast<unsigned>(parts_.size()));
    if (parts_.size() == segment.parts) end_ = End::kAnswered;
  } else if (segment.fin) {
    end_ = End::kClosed;
  }
}

// ---- the dispatcher

void Dispatcher::start() {
  socket_ = Socket::kFrozen;
  boot_ = heard_boot_;
  const control::TransferMachine::Rules rules{
      .transfer = std::chrono::milliseconds(kTransfer),
      .retry = std::chrono::milliseconds(kRetry),
      .idempotent =
          network_.scenario().idempotent || network_.mutated(Mutation::kRetriesEverything)};
  control::TransferDriver& self = *this;
  machine_ = std::make_unique<control::TransferMachine>(self, rules, kFirst);
  if (network_.scenario().crashes) {
    static constexpr std::array<Millis, 6> kWhen{0, 1, 3, 60, 2'100, 4'300};
    if (const unsigned when = network_.chooser().pick(16); when >= 1 && when <= kWhen.size())
      network_.after(kWhen[when - 1], [this] { kill(); });
  }
  machine_->start({0, kServer0}, at(network_.now()));
  if (network_.mutated(Mutation::kClosedEarly)) closed_early_ = true;
  arm();
}

void Dispatcher::arm() {
  if (machine_->over()) return over();
  const auto due =
      std::chrono::duration_cast<std::chrono::milliseconds>(machine_->due().time_since_epoch());
  const Millis when = std::max(static_cast<Millis>(due.count()), network_.now());
  network_.after(when - network_.now(), [this] {
    if (killed_ || over_ || machine_->due() > at(network_.now())) return;
    machine_->tick(at(network_.now()));
    arm();
  });
}

void Dispatcher::offer(const control::Attempt& attempt) {
  last_ = {.type = abi::WIRE_COMMIT,
           .sender = kDispatcher,
           .target = attempt.server.node,
           .generation = attempt.generation,
           .current = machine_->first(),
           .boot = boot_};
  network_.to_switch(last_);
}

void Dispatcher::take_back(control::Generation generation) {
  last_ = {.type = abi::WIRE_COMMIT,
           .sender = kDispatcher,
           .target = kDispatcher,
           .generation = generation,
           .current = machine_->first(),
           .boot = boot_};
  network_.to_switch(last_);
}

void Dispatcher::abort(const control::Attempt& attempt) {
  network_.to_node({.type = abi::WIRE_ABORT,
                    .sender = kDispatcher,
                    .target = attempt.server.node,
                    .generation = attempt.generation});
}

std::optional<control::Candidate> Dispatcher::next(const std::set<std::size_t>& tried) {
  for (std::size_t i = 0; i < kServers; ++i)
    if (!tried.contains(i)) return control::Candidate{i, static_cast<std::uint16_t>(kServer0 + i)};
  return std::nullopt;
}

void Dispatcher::hears(const Message& message) {
  if (killed_ || over_) return;
  abi::wire_header header{};
  header.type = message.type;
  header.sender = htons(message.sender);
  header.generation = htonl(message.generation);
  header.reason = message.reason;
  header.current_generation = htonl(message.current);
  if (network_.mutated(Mutation::kAnswerOfAnyAttempt) && message.sender != kSwitch) {
    header.generation = htonl(last_.generation);
    header.sender = htons(last_.target);
  }
  machine_->receive(header, {}, at(network_.now()));
  arm();
}

void Dispatcher::over() {
  if (over_) return;
  over_ = true;
  if (machine_->state() == control::TransferState::kReturned) {
    socket_ = Socket::kOpen;
    if (!closed_early_) answer(true);
    socket_ = Socket::kNone;
    return;
  }
  for (const unsigned piece : captured_) send_piece(piece);
  // after the grace period, again and again: what was acknowledged nobody else will send
  for (const Millis delay : {5, 55, 155, 355, 755, 1'555, 3'155, 6'355, 12'755, 25'555})
    network_.after(delay, [this] {
      if (killed_) return;
      for (unsigned piece = 1; piece <= accepted_; ++piece) send_piece(piece);
    });
  network_.after(32'000, [this] { socket_ = Socket::kNone; });
}

void Dispatcher::send_piece(unsigned piece) {
  network_.to_node({.type = abi::WIRE_SEGMENT,
                    .sender = kDispatcher,
                    .target = machine_->owner().server.node,
                    .generation = machine_->owner().generation,
                    .piece = piece});
}

/// As a plain TCP: until the client has had it all. `with_data`: an answer of our own; else just the end.
void Dispatcher::answer(bool with_data) {
  retransmission_.start(kTries, [this, with_data] {
    if (answered_) return false;
    for (unsigned part = 0; part < (with_data ? kParts : 1); ++part)
      network_.from_node({.node = kDispatcher,
                          .life = 1,
                          .part = part,
                          .parts = with_data ? kParts : 0,
                          .acknowledged = accepted_,
                          .fin = !with_data});
    return true;
  });
}

/// A packet of the client. The lock lets nothing through, but for what was past it already.
void Dispatcher::receives(unsigned piece) {
  if (killed_ || socket_ == Socket::kNone) {
    const bool answering = over_ && machine_->state() == control::TransferState::kReturned;
    if (!answered_ && !answering)  // the kernel of a host without this socket
      network_.from_node({.node = kDispatcher, .life = 1, .reset = true});
    return;
  }
  if (piece == 0) return;
  const bool leaked = piece == accepted_ + 1 && network_.chooser().pick(6) == 5;
  if (!leaked && !(over_ && socket_ == Socket::kOpen)) {
    captured_.insert(piece);
    if (over_ && machine_->state() == control::TransferState::kMoved) send_piece(piece);
    return;
  }
  accepted_ = std::max(accepted_, piece);
  network_.from_node({.node = kDispatcher, .life = 1, .acknowledged = accepted_});
}

/// kill -9: the kernel closes the sockets.
void Dispatcher::kill() {
  if (over_) return;
  killed_ = true;
  socket_ = Socket::kNone;
  answer(false);
}

// ---- a server

/// The program at the server's interface, which no process of ours stands behind.
void Server::commit(const Message& message) {
  if (network_.scenario().crashes && agent_ && network_.chooser().pick(24) == 23) kill_agent();
  const bool old = state_ != State::kNone && !control::newer(message.generation, known_);
  if (!old) {
    known_ = message.generation;
    state_ = listens_ ? State::kOpening : State::kRefused;
    if (listens_) open(message);
  }
  event(message);
}

void Server::open(const Message& message) {
  child_ = Child{.life = ++lives_, .generation = message.generation, .since = network_.now()};
  accepted_ = 0;
  stray_since_.reset();
  for (const unsigned piece : std::exchange(held_, {})) receives(piece);
  network_.after(1, [this, life = lives_] {
    if (child_ && child_->life == life) ++executions_;
  });
  network_.from_node({.node = node_, .life = child_->life});  // the child's first word: a pure ACK
  network_.after(2, [this] { speak(); });
}

/// The answer, until the client has it all or the kernel gives up.
void Server::speak() {
  if (!child_) return;
  const std::uint32_t life = child_->life;
  retransmission_.start(
      kTries,
      [this, life] {
        if (!child_ || child_->life != life) return false;
        const Millis age = network_.now() - child_->since;
        for (unsigned part = 0; part < kParts && part * pace_ <= age; ++part)
          network_.from_node({.node = node_,
                              .life = life,
                              .part = part,
                              .parts = kParts,
                              .acknowledged = accepted_});
        return child_->delivered < kParts;
      },
      [this, life] {
        if (child_ && child_->life == life) child_.reset();
      });
}

void Server::event(const Message& message) {
  if (agent_)
    network_.after(1, [this, message] { agent_takes(message); });
  else
    ring_.push_back(message);
}

void Server::agent_takes(const Message& message) {
  if (!agent_) return ring_.push_back(message);
  if (known_ == message.generation && state_ == State::kOpening) {
    state_ = State::kConfirmed;
    if (network_.now() < announcing_until_) renew();
  }
  answer_by_tombstone(message);
}

void Server::answer_by_tombstone(const Message& message) {
  if (known_ != message.generation || state_ == State::kNone)
    return tell(message, abi::WIRE_REFUSED, abi::REASON_STALE_GENERATION);
  switch (state_) {
    case State::kConfirmed:
      return tell(message, abi::WIRE_RESUMED);
    case State::kAborted:
      return tell(message, abi::WIRE_ABORTED);
    case State::kRefused:
      return tell(message, abi::WIRE_REFUSED, abi::REASON_NO_LISTENER);
    case State::kOpening:
    case State::kNone:
      return;
  }
}

void Server::tell(const Message& question, std::uint8_t type, std::uint8_t reason) {
  network_.to_node({.type = type,
                    .sender = node_,
                    .target = kDispatcher,
                    .generation = question.generation,
                    .reason = reason});
}

void Server::hears(const Message& message) {
  if (message.type == abi::WIRE_SEGMENT) {
    if (agent_ && child_ && child_->generation == message.generation) receives(message.piece);
    return;
  }
  if (!agent_ || message.type != abi::WIRE_ABORT) return;
  if (state_ == State::kNone || control::newer(message.generation, known_)) {
    known_ = message.generation;
    state_ = State::kAborted;
  }
  answer_by_tombstone(message);
}

/// A packet of the client.
void Server::receives(unsigned piece, unsigned parts) {
  if (child_) {
    accepted_ = std::max(accepted_, piece == accepted_ + 1 ? piece : 0U);
    child_->delivered = std::max(child_->delivered, parts);
    if (piece != 0)
      network_.from_node({.node = node_, .life = child_->life, .acknowledged = accepted_});
    return;
  }
  if (state_ == State::kConfirmed || network_.mutated(Mutation::kNoHold))
    return network_.from_node({.node = node_, .life = lives_, .reset = true});
  if (!agent_) return;
  const bool over = stray_since_ && network_.now() - *stray_since_ > 2 * kTransfer + kHold;
  if (over) return network_.from_node({.node = node_, .life = lives_, .reset = true});
  if (!stray_since_) stray_since_ = network_.now();
  if (held_.empty()) network_.after(kHold, [this, batch = ++batches_] { expire(batch); });
  if (piece != 0) held_.push_back(piece);
}

void Server::expire(unsigned batch) {
  if (batch == batches_) held_.clear();
}

void Server::revoked(std::uint32_t current) {
  if (current == 0) return renew();
  if (agent_ && child_ && control::newer(current, child_->generation)) child_.reset();
}

bool Server::has_zombie() const {
  const sim_owner owner = sim_switch_owner();
  return child_ && child_->delivered < kParts && owner.owner != node_;
}

void Server::kill_agent() {
  killed_ = true;
  agent_ = false;
  held_.clear();
  stray_since_.reset();
  network_.after(network_.chooser().pick(2) == 0 ? 20 : 3'000, [this] { restart_agent(); });
}

void Server::restart_agent() {
  agent_ = true;
  if (network_.mutated(Mutation::kTombstonesLost)) state_ = State::kNone;
  for (const Message& message : std::exchange(ring_, {}))
    network_.after(1, [this, message] { agent_takes(message); });
  renew();
}

void Server::announce() {
  announcing_until_ = network_.now() + kTransfer;
  for (const Millis when : {0, 250, 750, 1'750}) network_.after(when, [this] { renew(); });
}

void Server::renew() {
  if (!agent_ || !child_ || state_ != State::kConfirmed ||
      network_.mutated(Mutation::kNothingAnnounced))
    return;
  network_.to_switch({.type = abi::WIRE_RENEW, .sender = node_, .generation = child_->generation});
}

}  // namespace tcpmig::sim
