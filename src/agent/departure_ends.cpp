// SPDX-License-Identifier: MIT
// Departure: what becomes of it.
#include <arpa/inet.h>
#include <linux/tcp.h>
#include <netinet/in.h>
#include <spdlog/spdlog.h>
#include <sys/socket.h>

#include <algorithm>
#include <cstring>

#include "agent/closing.hpp"
#include "agent/departure.hpp"
#include "conn/parcel.hpp"
#include "conn/queues.hpp"
#include "conn/repair_mode.hpp"
#include "conn/segment.hpp"
#include "conn/socket_lock.hpp"
#include "conn/socket_option.hpp"
#include "control/client_segments.hpp"
#include "handover/handover.h"

namespace tcpmig::agent {
namespace {

using control::TransferState;
using Failure = control::TransferMachine::Failure;

constexpr int kLatePatience = 16;  // times timeouts.transfer
constexpr std::chrono::milliseconds kAgain{100};

/// Of a socket in repair: what lies behind `rcv_nxt`, and whether a FIN follows it.
std::pair<Bytes, bool> late_bytes_of(int fd, const DepartureRecord& record) {
  const auto info = conn::get_option<::tcp_info>(fd, IPPROTO_TCP, TCP_INFO, "getsockopt TCP_INFO");
  const auto state = to_tcp_state(info.tcpi_state);
  const bool closed = !state || peer_has_closed(*state);
  Seq end = conn::dump_queue_end(fd, conn::Queue::kReceive);
  if (closed) end = end - 1;
  if (!Seq{record.rcv_nxt}.before(end)) return {{}, closed && !record.peer_closed};
  Bytes all = conn::peek_queue(fd, conn::Queue::kReceive, conn::dump_received_length(fd));
  const std::size_t late = std::min<std::size_t>(all.size(), end.since({record.rcv_nxt}));
  all.erase(all.begin(), all.end() - static_cast<std::ptrdiff_t>(late));
  return {std::move(all), closed && !record.peer_closed};
}

}  // namespace

/// Whatever throws here is tried again.
void Departure::decided(TimePoint now) {
  if (stage_ != Stage::kDeciding) return;
  next_ = now + kAgain;
  if (abandoned_) return returned();
  if (!machine_.over()) return;
  if (machine_.state() == TransferState::kReturned) return returned();
  if (left_) return unknown(now);
  moved();
}

/// The target has refused it, and the switch says that it has spoken: its end of the connection is no more, and the client hears that from there.
bool Departure::is_lost() const {
  return !known_owner_ && refusal_ && refusal_->sender != 0 &&
         refusal_->reason != abi::REASON_STALE_GENERATION &&
         ntohl(refusal_->generation) == machine_.owner().generation;
}

void Departure::moved() {
  moved_ = true;
  stage_ = Stage::kSettling;
  record_.stage = DepartureRecord::Stage::kMoved;
  write_down();
  const bool lost = is_lost();
  ++(lost ? world_.counters.migrate_lost : world_.counters.migrated);
  if (lost)
    tell(ENOTRECOVERABLE, false, why().second + ", when its client had heard of it");
  else
    tell(0, false, {});
  world_.flows.left(record_.flow, record_.generation, Clock::now());
  spdlog::debug("{} moved to {}:{}, generation {}", client().str(), target_.node, target_.port,
                owner().generation);
  payload_ = {};
  parts_.clear();
  send_captures();
}

void Departure::send_segment(std::span<const std::byte> segment, bool crafted) const {
  send_to_target(control::segment_message(owner(), segment, crafted));
}

void Departure::send_captures() {
  for (const Bytes& piece : captures_.take_from(head_.rcv_nxt, control::segment_room(client())))
    send_segment(piece, false);
}

std::pair<Bytes, bool> Departure::late_bytes() const {
  try {
    if (frozen_) return {frozen_->late_bytes(), frozen_->late_fin()};
    return late_bytes_of(connection_.get(), record_);
  } catch (const std::system_error& error) {
    spdlog::debug("{} ended behind the lock: {}", client().str(), error.what());  // a RST
    return {};
  }
}

void Departure::grace_over(TimePoint now) {
  const auto [late, fin] = late_bytes();
  if (late.empty() && !fin) return finish();
  late_ = control::craft_segments(head_, late, fin, control::segment_room(client()));
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
                                     .unsettled = false,
                                     .opened = now,
                                     .renewed = now});
  // our next packet need not begin where the snapshot does: so the switch hears it from us first
  world_.answers.renew(record_.flow, record_.newest, record_.own_port);
}

void Departure::thaw() {
  if (std::exchange(thawed_, true)) return;
  if (frozen_) {
    connection_ = frozen_->thaw(captures_.all(), world_.deliver);
    return;
  }
  record_.voice().put_back(connection_.get());
  conn::leave_repair(connection_.get(), false);
  conn::open_lock(connection_.get());
  conn::send_what_waits(connection_.get());
  for (const CapturedSegment& segment : captures_.all())  // given back by the target
    conn::give_packets(head_.peer, head_.local, segment.bytes, world_.deliver);
}

void Departure::returned() {
  if (!std::exchange(returned_, true)) ++world_.counters.migrate_returned;
  make_owner_again();
  thaw();
  close_connection(world_.aside, std::move(connection_));  // its program has its own, or has ended
  world_.records.remove(record_.cookie);
  const auto [error, reason] = why();
  tell(error, true, reason);
  stage_ = Stage::kDone;
}

std::pair<int, std::string> Departure::why() const {
  if (abandoned_) return {EIO, "what the next agent must know could not be written down"};
  if (recovered_) return {ECONNABORTED, "the agent was ended in the middle"};
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
  told_ = {error, here, reason};
  send_verdict(channel_.get(), error, here, reason);
  close_channel(world_.aside, std::move(channel_));
}

void Departure::show_life() const {
  if (channel_) handover_send(channel_.get(), HANDOVER_WORKING, -1);
}

bool Departure::adopt(sys::UniqueFd& channel) {
  if (told_) {
    send_verdict(channel.get(), told_->error, told_->here, told_->reason);
    return true;
  }
  if (channel_ && !has_hung_up(channel_.get())) return false;
  close_channel(world_.aside, std::exchange(channel_, std::move(channel)));
  return true;
}

void send_verdict(int channel, int error, bool here, const std::string& reason) noexcept {
  const int verdict[]{error, here ? 1 : 0};  // struct handover_verdict, behind its head
  static_assert(sizeof(handover_verdict) == sizeof(handover_message) + sizeof verdict);
  try {
    std::string rest(reinterpret_cast<const char*>(verdict), sizeof verdict);
    rest += reason.substr(0, conn::kParcelBytes - sizeof(handover_verdict));
    conn::send_parcel(channel, conn::handover_frame(HANDOVER_VERDICT, rest), {});
  } catch (const std::exception&) {  // nobody is there any more
  }
}

}  // namespace tcpmig::agent
