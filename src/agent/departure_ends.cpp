// SPDX-License-Identifier: MIT
// Departure: what becomes of it.
#include <arpa/inet.h>
#include <spdlog/spdlog.h>
#include <sys/socket.h>

#include <cstring>

#include "agent/departure.hpp"
#include "conn/parcel.hpp"
#include "conn/repair_mode.hpp"
#include "conn/socket_lock.hpp"
#include "control/client_segments.hpp"
#include "handover/handover.h"

namespace tcpmig::agent {
namespace {

using control::TransferState;
using Failure = control::TransferMachine::Failure;

constexpr int kLatePatience = 16;  // times timeouts.transfer

}  // namespace

void Departure::decided(TimePoint now) {
  if (!machine_.over()) return;
  if (machine_.state() == TransferState::kReturned) return returned();
  if (left_) return unknown(now);
  moved();
}

void Departure::moved() {
  moved_ = true;
  stage_ = Stage::kSettling;
  ++world_.counters.migrated;
  record_.stage = DepartureRecord::Stage::kMoved;
  write_down();
  world_.flows.left(record_.flow, record_.generation, Clock::now());
  tell(0, false, {});
  spdlog::debug("{} moved to {}:{}, generation {}", client().str(), target_.node, target_.port,
                machine_.owner().generation);
  payload_ = {};
  parts_.clear();
  if (!frozen_) return finish();
  send_captures();
}

void Departure::send_segment(std::span<const std::byte> segment, bool crafted) const {
  send_to_target(control::segment_message(owner(), segment, crafted));
}

void Departure::send_captures() {
  for (const Bytes& piece : captures_.take_from(head_.rcv_nxt, control::segment_room(client())))
    send_segment(piece, false);
}

void Departure::grace_over(TimePoint now) {
  bool fin = false;
  Bytes late;
  try {
    late = frozen_->late_bytes();
    fin = frozen_->late_fin();
  } catch (const std::system_error& error) {
    spdlog::debug("{} ended behind the lock: {}", client().str(), error.what());  // a RST
  }
  if (late.empty() && !fin) return finish();
  late_ = control::craft_segments(frozen_->snapshot(), late, fin, control::segment_room(client()));
  stage_ = Stage::kLate;
  pause_ = world_.config.timeouts.retry;
  deadline_ = now + kLatePatience * world_.config.timeouts.transfer;
  send_late(now);
}

/// These bytes are acknowledged: nobody else will ever send them again, and a datagram may be lost.
void Departure::send_late(TimePoint now) {
  if (now >= deadline_) return finish();
  for (const Bytes& segment : late_) send_segment(segment, true);
  next_ = now + pause_;
  pause_ *= 2;
}

/// Moved: without a packet. Unknown: by RST, which the switch lets through only if nobody else has turned out to own it.
void Departure::finish() {
  if (stage_ == Stage::kUnknown) {
    thaw();
    const linger at_once{1, 0};
    if (connection_)
      ::setsockopt(connection_.get(), SOL_SOCKET, SO_LINGER, &at_once, sizeof at_once);
  } else if (frozen_) {
    frozen_->commit();
  }
  connection_.reset();
  world_.records.remove(record_.cookie);
  stage_ = Stage::kDone;
}

void Departure::unknown(TimePoint now) {
  stage_ = Stage::kUnknown;
  ++world_.counters.migrate_unknown;
  next_ = now + kLatePatience * world_.config.timeouts.transfer;
  tell(ENOTRECOVERABLE, false,
       "the switch has lost its table, and the target does not say whether it has the connection");
}

/// Above every generation that was used: what is still on its way then changes nothing.
void Departure::make_owner_again() {
  if (record_.newest == record_.offered && !taken_back_) return;
  abi::wire_header commit{};
  commit.generation = htonl(record_.newest);
  commit.snd_nxt = htonl(record_.snd_una);
  commit.target_port = htons(record_.own_port);
  world_.tombstones.claim(record_.flow, commit, 0);
  world_.tombstones.settle(record_.flow, record_.newest, abi::TOMB_CONFIRMED);
  const TimePoint now = Clock::now();
  world_.flows.opened(record_.flow, {.generation = record_.newest,
                                     .target_port = record_.own_port,
                                     .census = 0,
                                     .unsettled = false,
                                     .opened = now,
                                     .renewed = now});
  // our next packet need not begin where the snapshot does: so the switch hears it from us first
  world_.answers.renew(record_.flow, record_.newest, record_.own_port);
}

void Departure::thaw() {
  if (frozen_) {
    connection_ = frozen_->thaw(captures_.all(), world_.deliver);
    return;
  }
  record_.voice().put_back(connection_.get());
  conn::leave_repair(connection_.get(), false);
  conn::open_lock(connection_.get());
  conn::send_what_waits(connection_.get());
}

void Departure::returned() {
  ++world_.counters.migrate_returned;
  make_owner_again();
  thaw();
  connection_.reset();  // its program has its own
  world_.records.remove(record_.cookie);
  const auto [error, reason] = why();
  tell(error, true, reason);
  stage_ = Stage::kDone;
}

std::pair<int, std::string> Departure::why() const {
  if (!frozen_) return {ECONNABORTED, "the agent was ended in the middle"};
  if (machine_.failure() == Failure::kNoAnswer)
    return {ETIMEDOUT, target_.node + " does not answer"};
  if (!refusal_) return {ETIMEDOUT, "the switch does not answer"};
  const bool by_switch = refusal_->sender == 0;
  std::string text = (by_switch ? "the switch" : target_.node) +
                     " refuses: " + control::reason_text(refusal_->reason);
  if (const std::uint32_t detail = ntohl(refusal_->detail); !by_switch && detail != 0)
    text += std::string(" (") + std::strerror(static_cast<int>(detail)) + ")";
  return {ECONNREFUSED, text};
}

/// A program that has ended does not hear it.
void Departure::tell(int error, bool here, const std::string& reason) {
  send_verdict(channel_.get(), error, here, reason);
  channel_.reset();
}

void send_verdict(int channel, int error, bool here, const std::string& reason) noexcept {
  handover_verdict verdict{};
  std::memcpy(verdict.head.magic, HANDOVER_MAGIC, sizeof verdict.head.magic);
  verdict.head.version = HANDOVER_VERSION;
  verdict.head.verb = HANDOVER_VERDICT;
  verdict.error = error;
  verdict.here = here ? 1 : 0;
  try {
    const auto head = std::as_bytes(std::span(&verdict, 1));
    Bytes bytes(head.begin(), head.end());
    const auto text = std::as_bytes(std::span(reason));
    bytes.insert(bytes.end(), text.begin(), text.end());
    conn::send_parcel(channel, bytes, {});
  } catch (const std::exception&) {  // nobody is there any more
  }
}

}  // namespace tcpmig::agent
