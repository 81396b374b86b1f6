// SPDX-License-Identifier: MIT
#include "sim/departure.hpp"

#include "sim/server.hpp"

namespace tcpmig::sim {
namespace {

constexpr Millis kGracePeriod = 5, kUnknownFor = 16 * kTransfer, kLeftFor = 4 * kTransfer;

control::TransferMachine::Rules rules_of(const Network& network, std::uint32_t generation) {
  control::TransferMachine::Rules rules{.transfer = std::chrono::milliseconds(kTransfer),
                                        .retry = std::chrono::milliseconds(kRetry),
                                        .idempotent = false};
  if (!network.mutated(Mutation::kOwnedForgotten)) rules.owned = generation;
  return rules;
}

}  // namespace

void Departure::start(std::uint16_t target) {
  has_frozen_ = true;
  server_.child_->frozen = true;
  freeze(server_.child_->stream, server_.boot_);
  begun_in_ = boot_;
  record_ = {.generation = server_.generations_.back(), .boot = boot_, .target = target};
  make_machine(rules_of(network_, record_.generation),
               control::next_generation(record_.generation));
  machine().start({0, target}, at(network_.now()));
  arm();
}

void Departure::go_on(const Record& record) {
  record_ = record;
  freeze(server_.child_->stream, server_.boot_);
  boot_ = begun_in_ = record.boot;
  make_machine(rules_of(network_, record.generation), record.offered);
  machine().go_on({record.offered, {0, record.target}}, record.newest, at(network_.now()));
  arm();
}

void Departure::hears_boot(std::uint32_t boot) {
  if (!is_dead()) Mover::hears_boot(boot);
}

void Departure::follow_boot() {
  Mover::follow_boot();
  record_.boot = boot_;
}

void Departure::offer(const control::Attempt& attempt) {
  record_.offered = record_.newest = attempt.generation;
  server_.record_ = record_;
  note_offer(attempt.generation, attempt.server.node);
  Message commit = about(attempt.server.node, attempt.generation);
  commit.whole = true;
  commit.delivered = server_.child_->delivered;
  commit.execution = server_.child_->execution;
  messages_ = parts_of(commit, frozen_.size());
  for (const Message& message : messages_) network_.to_switch(message);
}

void Departure::take_back(control::Generation generation) {
  record_.newest = generation;
  server_.record_ = record_;
  Mover::take_back(generation);
}

void Departure::note(Note note) {
  Mover::note(note);
  if (note == Note::kTakenBack) taken_back_ = true;
}

void Departure::over() {
  if (!server_.child_ || !server_.child_->frozen) return finish();
  if (machine().state() == control::TransferState::kReturned) return returned();
  if (has_left()) return end_unknown();
  moved();
}

/// Above every generation that was used: what is still on its way then changes nothing.
void Departure::returned() {
  const bool again = record_.newest != record_.offered || taken_back_;
  if (again) {
    server_.claim(record_.newest, Server::State::kConfirmed);
    server_.generations_.back() = record_.newest;
  }
  server_.record_.reset();
  if (again || server_.boot_ != begun_in_) server_.renew();  // what was not announced meanwhile
  server_.child_->frozen = false;
  if (has_frozen_)
    for (const Captured& captured : captured_)
      server_.child_->stream.take(captured.seq, captured.data);
  returned_ = done_ = true;
  server_.application_takes(server_.child_->life, true);
  if (!captured_.empty()) server_.acknowledge();
}

void Departure::moved() {
  record_.moved = true;
  server_.record_ = record_;
  server_.left_ = Server::Left{machine().owner().server.node, machine().owner().generation,
                               network_.now() + kLeftFor};
  if (!has_frozen_) return finish();
  send_captures();
  network_.after(kGracePeriod, [this] {
    if (is_dead()) return;
    send_late(server_.child_->stream, [this] { finish(); });
  });
}

/// Silently.
void Departure::finish() {
  if (is_dead()) return;
  server_.lose_child();
  server_.record_.reset();
  done_ = true;
}

/// By RST, which the switch lets through only if nobody else has turned out to own the flow.
void Departure::end_unknown() {
  network_.after(kUnknownFor, [this] {
    if (is_dead()) return;
    network_.from_node({.node = node_,
                        .life = server_.child_->life,
                        .seq = server_.child_->delivered,
                        .reset = true});
    finish();
  });
}

}  // namespace tcpmig::sim
