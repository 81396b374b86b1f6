// SPDX-License-Identifier: MIT
#include "sim/dispatcher.hpp"

#include <algorithm>

#include "sim/switch_run.hpp"

namespace tcpmig::sim {
namespace {

constexpr unsigned kTries = 10;  // of a retransmission: more than the network may lose
constexpr Millis kTimer = 200, kGracePeriod = 5;

}  // namespace

void Dispatcher::start() {
  state_ = Socket::kFrozen;
  freeze(socket_, heard_boot_);
  parts_ = frozen_.size();
  make_machine({.transfer = std::chrono::milliseconds(kTransfer),
                .retry = std::chrono::milliseconds(kRetry),
                .idempotent = network_.scenario().idempotent ||
                              network_.mutated(Mutation::kRetriesEverything)},
               kFirstGeneration);
  machine().start({0, kServer0}, at(network_.now()));
  if (network_.mutated(Mutation::kClosedEarly)) state_ = Socket::kNone;
  arm();
}

void Dispatcher::offer(const control::Attempt& attempt) {
  splice_captures();
  note_offer(attempt.generation, attempt.server.node);
  messages_ = parts_of(about(attempt.server.node, attempt.generation), parts_);
  repeat();
}

void Dispatcher::repeat() {
  for (const Message& message : messages_) network_.to_switch(message);
}

std::optional<control::Candidate> Dispatcher::next(const std::set<std::size_t>& tried) {
  for (std::size_t i = 0; i < kServers; ++i)
    if (!tried.contains(i)) return control::Candidate{i, static_cast<std::uint16_t>(kServer0 + i)};
  return std::nullopt;
}

void Dispatcher::over() {
  if (state_ == Socket::kNone) return;  // closed too early, on purpose
  if (machine().state() == control::TransferState::kReturned) return returned();
  if (has_left()) return end_unknown();
  moved();
}

void Dispatcher::returned() {
  state_ = Socket::kOpen;
  for (const Captured& captured : captured_) socket_.take(captured.seq, captured.data);
  execution_ = network_.new_execution();
  answer(kTries, kTimer);
}

void Dispatcher::moved() {
  send_captures();
  network_.after(kGracePeriod, [this] {
    if (is_dead()) return;
    send_late(socket_, [this] { state_ = Socket::kNone; });
  });
}

/// When the server has had time to speak, if it has the connection. The switch lets the RST through only if nobody owns the flow.
void Dispatcher::end_unknown() {
  network_.after(16 * kTransfer, [this] {
    if (is_dead()) return;
    state_ = Socket::kNone;
    network_.from_node({.node = kDispatcher, .reset = true});
  });
}

/// As a plain TCP: until the client has had it all.
void Dispatcher::answer(unsigned left, Millis delay) {
  if (died_with_it_ || delivered_ == kParts) return;
  for (unsigned part = 0; part < kParts; ++part)
    network_.from_node({.node = kDispatcher,
                        .execution = execution_,
                        .part = part,
                        .parts = kParts,
                        .acknowledged = socket_.next()});
  if (left > 0)
    network_.after(delay, [this, left, delay] { answer(left - 1, 2 * delay); });
  else
    state_ = Socket::kNone;
}

/// A packet of the client. The lock lets nothing through, but for what was past it already.
void Dispatcher::receives(const ClientSegment& segment) {
  if (!host_) return;
  if (state_ == Socket::kNone)
    return network_.from_node({.node = kDispatcher, .seq = segment.answer, .reset = true});
  if (state_ == Socket::kOpen) delivered_ = std::max(delivered_, segment.answer);
  if (segment.data.empty()) return;
  if (state_ == Socket::kFrozen && !leaks(socket_, segment.seq))
    return capture(segment.seq, segment.data);
  socket_.take(segment.seq, segment.data);
  network_.from_node({.node = kDispatcher, .acknowledged = socket_.next()});
}

/// kill -9: the kernel closes the sockets, and the process is started anew; or the machine is gone.
void Dispatcher::kill() {
  if (!process_ || !host_) return;
  const bool had_it = state_ != Socket::kNone;
  process_ = false;
  died_with_it_ = true;
  died_ = network_.now();
  state_ = Socket::kNone;
  const unsigned fate = network_.chooser().sequel(3);
  if (fate == 2) {
    host_ = false;
  } else {
    if (had_it) close(kTries, kTimer);
    network_.after(fate == 0 ? 20 : 3'000, [this] {
      process_ = true;
      replaced_ = network_.now();
    });
  }
  network_.switch_run().dispatcher_died();
}

void Dispatcher::close(unsigned left, Millis delay) {
  network_.from_node({.node = kDispatcher, .acknowledged = socket_.next(), .fin = true});
  if (left > 0) network_.after(delay, [this, left, delay] { close(left - 1, 2 * delay); });
}

}  // namespace tcpmig::sim
