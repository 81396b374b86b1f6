// SPDX-License-Identifier: MIT
// A server's kernel, the programs at its interface, and its application.
#include "sim/server.hpp"

#include <algorithm>

namespace tcpmig::sim {
namespace {

constexpr unsigned kTries = 10;  // of a retransmission: more than the network may lose
constexpr Millis kTimer = 200;

}  // namespace

Server::Server(Network& network, std::uint16_t node)
    : network_(network),
      node_(node),
      listens_(!network.chooser().rarely(8)),
      pace_(network.chooser().rarely(3) ? 1'500 : 0),
      assembly_(std::make_unique<agent::Assembly>(std::chrono::milliseconds(kTransfer))) {}

void Server::begin_with(const Letters& request) {
  claim(kFirstGeneration, State::kConfirmed);
  child_ = Child{.life = new_life(kFirstGeneration),
                 .execution = network_.new_execution(),
                 .allowed = network_.chooser().pick(2),
                 .stream = Stream(request)};
  speak(child_->life, kTries, kTimer);
  network_.after(2 * network_.chooser().pick(3), [this] {
    if (!child_) return;
    if (!up_ || child_->stream.has_gap())  // refused: its program goes on with it
      return application_takes(child_->life, true);
    departure_ = std::make_unique<Departure>(network_, *this, node_);
    departure_->start(static_cast<std::uint16_t>(node_ + 1));
  });
}

void Server::hears(const Message& message) {
  switch (message.type) {
    case abi::WIRE_COMMIT:
      if (message.parts == 1 && !message.whole && !child_) return program_opens(message);
      // the agent's to open; from now on early packets wait
      if (may_follow(message.generation, State::kAnnounced))
        claim(message.generation, State::kAnnounced);
      break;
    case abi::WIRE_RESUMED:
    case abi::WIRE_REFUSED:
    case abi::WIRE_ABORTED:
    case abi::WIRE_MISSING:
      if (up_ && departure_) departure_->hears(message);
      return;
    default:
      break;
  }
  soon(1, [this, message] {
    switch (message.type) {
      case abi::WIRE_COMMIT:
      case abi::WIRE_DATA:
        return on_part(message);
      case abi::WIRE_ABORT:
        return on_abort(message);
      case abi::WIRE_SEGMENT:
        return on_segment(message);
      default:
        return on_revoked(message.generation);
    }
  });
}

// ---- tombstones, as bpf/lib/tombstone.h

bool Server::may_follow(std::uint32_t generation, State state) const {
  if (state_ == State::kNone) return true;
  if (generation == known_) return state_ == State::kAnnounced && state != State::kAnnounced;
  return control::newer(generation, known_);
}

void Server::claim(std::uint32_t generation, State state) {
  known_ = generation;
  state_ = state;
}

// ---- transfers

/// No process of ours stands behind this.
void Server::program_opens(const Message& message) {
  if (!may_follow(message.generation, State::kOpening)) return event({message, Kind::kDuplicate});
  claim(message.generation, listens_ ? State::kOpening : State::kRefused);
  reason_ = abi::REASON_NO_LISTENER;
  if (!listens_) return event({message, Kind::kRefused});
  open(message, message.data);
  event({message, Kind::kOpened});
}

void Server::open(const Message& message, const Letters& received) {
  child_ = Child{.life = new_life(message.generation),
                 .execution = message.whole ? message.execution : network_.new_execution(),
                 .delivered = message.delivered,
                 .since = network_.now(),
                 .stream = Stream(received),
                 .in_agent = message.whole};
  if (message.whole) return;
  acknowledge();  // its first word
  application_takes(child_->life, false);
}

void Server::application_takes(unsigned life, bool goes_on) {
  child_->in_agent = false;
  child_->allowed = kParts;
  network_.after(1, [this, life, goes_on] {
    if (child_ && child_->life == life && !goes_on) ++executions_;
  });
  network_.after(2, [this, life] { speak(life, kTries, kTimer); });
}

/// The answer, until the client has it all or the kernel gives up.
void Server::speak(unsigned life, unsigned left, Millis delay) {
  if (!child_ || child_->life != life || child_->frozen) return;
  const Millis age = network_.now() - child_->since;
  for (unsigned part = child_->delivered;
       part < child_->allowed && (part - child_->delivered) * pace_ <= age; ++part)
    network_.from_node({.node = node_,
                        .life = child_->life,
                        .execution = child_->execution,
                        .part = part,
                        .parts = kParts,
                        .acknowledged = child_->stream.next()});
  if (child_->delivered == kParts) return;
  if (left == 0) return child_ends();
  network_.after(delay, [this, life, left, delay] { speak(life, left - 1, 2 * delay); });
}

void Server::acknowledge() {
  network_.from_node({.node = node_,
                      .life = child_->life,
                      .part = child_->delivered,
                      .acknowledged = child_->stream.next()});
}

void Server::receives(const ClientSegment& segment) {
  if (child_) return kernel_takes(segment);
  if (up_) on_stray(segment);
}

void Server::kernel_takes(const ClientSegment& segment) {
  const bool locked = child_->frozen;
  if (!locked) child_->delivered = std::max(child_->delivered, segment.answer);
  if (segment.data.empty()) return;
  if (child_->in_agent) return held_.push_back(segment);  // kept by a lock until its program has it
  if (locked && (!departure_ || !departure_->leaks(child_->stream, segment.seq))) {
    if (departure_ && departure_->takes_captures()) departure_->capture(segment.seq, segment.data);
    return;
  }
  child_->stream.take(segment.seq, segment.data);
  acknowledge();
}

void Server::reset(const ClientSegment& segment) {
  network_.from_node({.node = node_, .seq = segment.answer, .reset = true});
}

void Server::lose_child() {
  if (child_) read_.push_back(child_->stream.letters());
  child_.reset();
}

/// The kernel has given up.
void Server::child_ends() {
  lose_child();
  soon(150, [this, generation = known_] {  // the agent's census
    if (!child_)
      network_.to_switch({.type = abi::WIRE_GONE, .sender = node_, .generation = generation});
  });
}

bool Server::can_renew() const {
  if (!child_ || child_->frozen || sim_switch_owner().owner != node_) return true;
  sim_switch_renew(node_, known_);
  return sim_switch_owner().generation == known_;
}

bool Server::has_zombie() const {
  const sim_owner owner = sim_switch_owner();
  return child_ && child_->delivered < kParts && owner.owner != node_;
}

}  // namespace tcpmig::sim
