// SPDX-License-Identifier: MIT
#include "sim/mover.hpp"

#include <arpa/inet.h>

#include <algorithm>
#include <array>
#include <ranges>

namespace tcpmig::sim {
namespace {

/// After the lock a packet that was on its way through the kernel can still be taken in; not later than the grace period, and
/// none that comes behind one that was kept back. (One out of order is not acknowledged, so it does not matter.)
constexpr Millis kPastTheLock = 4;
constexpr Millis kLateEnd = 16 * kTransfer;

}  // namespace

void Mover::freeze(const Stream& socket, std::uint32_t boot) {
  frozen_ = offered_ = socket.letters();
  frozen_at_ = network_.now();
  boot_ = heard_boot_ = boot;
}

void Mover::make_machine(const control::TransferMachine::Rules& rules, std::uint32_t first) {
  control::TransferDriver& self = *this;
  machine_ = std::make_unique<control::TransferMachine>(self, rules, first);
}

bool Mover::leaks(const Stream& socket, unsigned seq) {
  return network_.now() <= frozen_at_ + kPastTheLock && !kept_back_ && seq <= socket.next() &&
         network_.chooser().rarely(4);
}

void Mover::arm() {
  if (machine_->over()) {
    if (!std::exchange(over_, true)) over();
    return;
  }
  const auto due =
      std::chrono::duration_cast<std::chrono::milliseconds>(machine_->due().time_since_epoch());
  const Millis when = std::max(static_cast<Millis>(due.count()), network_.now());
  network_.after(when - network_.now(), [this] {
    if (is_dead() || over_ || machine_->due() > at(network_.now())) return;
    machine_->tick(at(network_.now()));
    arm();
  });
}

void Mover::hears(const Message& message) {
  if (is_dead() || !machine_) return;
  if (message.type == abi::WIRE_SEGMENT) {
    const bool ours = std::ranges::any_of(offers_, [&](const Offer& offer) {
      return offer.generation == message.generation && offer.node == message.sender;
    });
    if (ours) capture(message.seq, message.data);
    return;
  }
  if (over_) return;
  if (message.sender == kSwitch && !messages_.empty() &&
      message.generation == messages_.back().generation)
    heard_ = true;
  abi::wire_header header{};
  header.type = message.type;
  header.sender = htons(message.sender);
  header.generation = htonl(message.generation);
  header.reason = message.reason;
  header.current_generation = htonl(message.current);
  if (message.sender == kSwitch && message.reason == abi::REASON_OTHER_BOOT)
    heard_boot_ = message.boot;  // sooner than by a heartbeat
  if (network_.mutated(Mutation::kAnswerOfAnyAttempt) && message.sender != kSwitch &&
      !messages_.empty()) {
    header.generation = htonl(messages_.back().generation);
    header.sender = htons(messages_.back().target);
  }
  std::vector<std::byte> parts;
  for (std::uint8_t part = 0; part < Letters::kMost; ++part)
    if ((message.missing >> part & 1) != 0)
      parts.insert(parts.end(), {std::byte{0}, std::byte{part}});
  machine_->receive(header, parts, at(network_.now()));
  arm();
}

void Mover::capture(unsigned seq, const Letters& data) {
  kept_back_ = true;
  captured_.push_back({seq, data});
  if (has_moved()) send_captures();
}

/// What is captured by now goes with the next offer.
void Mover::splice_captures() {
  Stream stream(offered_);
  for (const Captured& captured : captured_)
    if (captured.seq <= stream.next()) stream.take(captured.seq, captured.data);
  offered_ = stream.letters();
}

Message Mover::about(std::uint16_t target, std::uint32_t generation) const {
  return {.type = abi::WIRE_COMMIT,
          .sender = node_,
          .target = target,
          .generation = generation,
          .current = machine_->first(),
          .boot = boot_};
}

/// A byte in each part, the COMMIT has the rest.
std::vector<Message> Mover::parts_of(const Message& commit, unsigned parts) const {
  std::vector<Message> messages(parts, commit);
  for (unsigned part = 0; part < parts; ++part) {
    const bool last = part + 1 == parts;
    messages[part].type = last ? abi::WIRE_COMMIT : abi::WIRE_DATA;
    messages[part].part = static_cast<std::uint16_t>(part);
    messages[part].parts = static_cast<std::uint16_t>(parts);
    messages[part].length = offered_.size();
    messages[part].data = offered_.part(part, last ? Letters::kMost : 1);
  }
  return messages;
}

void Mover::note_offer(std::uint32_t generation, std::uint16_t node) {
  offers_.push_back({generation, node, offered_.size()});
}

void Mover::take_back(control::Generation generation) {
  heard_ = false;
  messages_ = {about(node_, generation)};
  network_.to_switch(messages_.front());
}

void Mover::resend(std::uint16_t part) {
  if (part < messages_.size()) network_.to_switch(messages_[part]);
}

void Mover::abort(const control::Attempt& attempt) {
  network_.to_node({.type = abi::WIRE_ABORT,
                    .sender = node_,
                    .target = attempt.server.node,
                    .generation = attempt.generation});
}

void Mover::send_segment(unsigned seq, const Letters& data, bool crafted) {
  network_.to_node({.type = abi::WIRE_SEGMENT,
                    .sender = node_,
                    .target = machine_->owner().server.node,
                    .generation = machine_->owner().generation,
                    .data = data,
                    .seq = seq,
                    .crafted = crafted});
}

/// What the owner had from the first, adds nothing.
void Mover::send_captures() {
  const auto offer = std::ranges::find(offers_, machine_->owner().generation, &Offer::generation);
  const unsigned end = offer != offers_.end() ? offer->end : 0;
  for (const Captured& captured : std::exchange(captured_, {}))
    if (captured.seq + captured.data.size() > end) send_segment(captured.seq, captured.data, false);
}

/// These bytes are acknowledged: nobody else will ever send them again, and a datagram may be lost.
void Mover::send_late(const Stream& socket, Task then) {
  const Letters late = socket.letters().part(frozen_.size(), Letters::kMost);
  if (late.empty()) return then();
  const unsigned seq = network_.mutated(Mutation::kLateBytesFromZero) ? 0 : frozen_.size();
  for (Millis delay = 0, pause = kRetry; delay < kLateEnd; delay += pause, pause *= 2)
    network_.after(delay, [this, late, seq] {
      if (!is_dead()) send_segment(seq, late, true);
    });
  network_.after(kLateEnd, then);
}

}  // namespace tcpmig::sim
