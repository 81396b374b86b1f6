// SPDX-License-Identifier: MIT
// Handoffs: what becomes of those that were offered.
#include <endian.h>
#include <spdlog/spdlog.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#include <algorithm>

#include "agent/closing.hpp"
#include "agent/handoffs.hpp"
#include "agent/handoffs_steps.hpp"
#include "conn/queues.hpp"
#include "conn/repair_steps.hpp"
#include "conn/segment.hpp"
#include "conn/socket_option.hpp"
#include "handover/handover.h"

namespace tcpmig::agent {

/// It connects late (a full backlog), or the program has closed it.
void Handoffs::hear_ticket(Entry entry) {
  Ticket& ticket = *entry->second.ticket;
  try {
    if (!ticket.knocked) {
      if (ticket.advance()) watch(ticket.fd.get(), EPOLLIN);
      return;
    }
  } catch (const std::system_error& error) {
    return end(entry, unreachable(error));
  }
  char ignored[512];
  const ssize_t got = ::recv(ticket.fd.get(), ignored, sizeof ignored, MSG_DONTWAIT);
  if (got > 0 || (got < 0 && errno == EAGAIN)) return;  // a program that greets whoever comes
  if (got == 0) doors_.found_deaf(port_of(entry->second.arrival), Clock::now());  // else: it ended
  ++counters_.tickets_untaken;
  end(entry, {abi::REASON_NOT_TAKEN});
}

bool Handoffs::hear_program(Entry entry) {
  std::optional<conn::Parcel> parcel;
  try {
    parcel = conn::receive_parcel(entry->second.channel.get());
  } catch (const std::system_error& error) {
    if (error.code().value() == EAGAIN) return false;
  }
  if (parcel) close_all(*parcel);
  if (parcel && conn::verb_of(*parcel) == HANDOVER_TAKEN)
    give(entry);
  else
    withdraw(entry, {abi::REASON_NOT_TAKEN});
  return true;
}

const ResumeKit& Handoffs::kit() {
  if (!kit_) kit_ = std::make_unique<ResumeKit>();
  return *kit_;
}

/// Its lock is off then, and the client may hear of it.
void Handoffs::go_live(const Waiting& waiting) {
  const int fd = waiting.connection.get();
  const sys::Endpoint local = local_end(waiting.arrival);
  offered_.take_off(fd);
  if (waiting.arrival.is_whole()) conn::restore_voice(fd, waiting.snapshot, local, deliver_);
  conn::finish_resume(fd, waiting.snapshot, local, deliver_);
}

/// TAKEN has come. All that can be done in silence, while it can be refused as if nothing had been.
void Handoffs::give(Entry entry) {
  const Waiting& waiting = entry->second;
  try {
    const int fd = waiting.connection.get();
    if (waiting.arrival.is_whole()) {
      conn::restore_sent_side(fd, waiting.snapshot, &kit());
      conn::reserve_send_space(fd, waiting.to_send);
    }
  } catch (const std::exception& error) {
    spdlog::warn("{}: {}", client_of(entry->first).str(), error.what());
    return end(entry, {abi::REASON_KERNEL_REFUSED});
  }
  if (has_hung_up(waiting.channel.get())) return end(entry, {abi::REASON_NOT_TAKEN, ETIMEDOUT});
  Waiting given = std::move(entry->second);
  forget_descriptors(given);
  waiting_.erase(entry);
  give_life(given);
  close(given);
}

/// The point of no return.
void Handoffs::give_life(Waiting& waiting) {
  try {
    go_live(waiting);
  } catch (const std::exception& error) {
    spdlog::warn("{}: {}", client_of(waiting.arrival.flow).str(), error.what());
    ++counters_.not_taken;
    refused_(waiting.opened, {abi::REASON_KERNEL_REFUSED, 0});
    hand_back(waiting, offered_.take(waiting.connection.get()));
    if (half_alive_)
      half_alive_(waiting.opened, local_end(waiting.arrival), waiting.snapshot.snd_nxt);
    return;
  }
  handover_send(waiting.channel.get(), HANDOVER_GO, -1);  // where it fails the program looks itself
  ++counters_.handed_over;
  if (waiting.arrival.is_whole()) ++counters_.whole_taken;
  waiting.opened.stamps.opened_ns = htobe64(nanoseconds(Clock::now()));
  taken_(waiting.opened);
  replay(waiting);
}

/// What the client has sent while the connection was offered.
void Handoffs::replay(const Waiting& waiting) {
  const sys::Endpoint client = client_of(waiting.arrival.flow), local = local_end(waiting.arrival);
  for (const CapturedSegment& captured : offered_.take(waiting.connection.get())) {
    if (!conn::is_intact(client, local, captured.bytes)) {
      ++counters_.captures_dropped;
      continue;
    }
    conn::give_packets(client, local, captured.bytes, deliver_);
    ++counters_.replayed;
  }
}

/// What is closed is in repair: nobody hears of it.
void Handoffs::end(Entry entry, Refusal refusal) {
  Waiting waiting = std::move(entry->second);
  std::vector<CapturedSegment> captured;
  if (waiting.connection) captured = offered_.take(waiting.connection.get());
  forget_descriptors(waiting);
  waiting_.erase(entry);
  ++counters_.not_taken;
  refused_(waiting.opened, refusal);
  hand_back(waiting, captured);
  close(waiting);
}

void Handoffs::note_withdrawn(const Waiting& waiting) {
  if (!waiting.connection) return;
  if (withdrawn_.size() >= kMost) withdrawn_.pop_front();
  withdrawn_.push_back(conn::socket_cookie(waiting.connection.get()));
}

/// Its program may have it still.
void Handoffs::withdraw(Entry entry, Refusal refusal) {
  note_withdrawn(entry->second);
  end(entry, refusal);
}

bool Handoffs::was_withdrawn(std::uint64_t cookie) const {
  return std::ranges::find(withdrawn_, cookie) != withdrawn_.end();
}

/// Nobody else has what a lock has kept: whoever wanted to move the connection still has it, and gives it that.
void Handoffs::hand_back(const Waiting& waiting, const std::vector<CapturedSegment>& captured) {
  for (const CapturedSegment& segment : captured)
    if (!give_back_ || !give_back_(waiting.opened, port_of(waiting.arrival), segment.bytes))
      ++counters_.captures_dropped;
}

/// The program may have ended, and left here what is the last descriptor of whatever it has set SO_LINGER on, or sent.
void Handoffs::close(Waiting& waiting) {
  close_channel(aside_, std::move(waiting.channel));
  close_connection(aside_, std::move(waiting.connection));
}

void Handoffs::time_out(Entry entry, TimePoint now) {
  Waiting& waiting = entry->second;
  if (!waiting.ticket) {
    if (!hear_program(entry)) withdraw(entry, {abi::REASON_NOT_TAKEN, ETIMEDOUT});
    return;
  }
  ++counters_.tickets_untaken;
  const Ticket& ticket = *waiting.ticket;
  const auto other_end = diag_.find(ticket.to, ticket.from);
  if (other_end && other_end->inode != 0) {
    doors_.found_deaf(ticket.to.port, now);
    return end(entry, {abi::REASON_NOT_TAKEN});
  }
  const bool full = !ticket.knocked && backlog_full(diag_, ticket.to);
  end(entry, {full ? abi::REASON_BACKLOG_FULL : abi::REASON_NOT_TAKEN, ETIMEDOUT});
}

bool Handoffs::ask(const abi::flow_key& flow, const abi::wire_header& question,
                   const sys::Endpoint& from) {
  const auto entry = waiting_.find(flow);
  if (entry == waiting_.end() || entry->second.opened.question.generation != question.generation)
    return false;
  Opened& opened = entry->second.opened;
  const auto port = opened.question.target_port;
  opened.question = question;
  opened.question.target_port = port;
  opened.from = from;
  const bool abort = question.type == abi::WIRE_ABORT;
  if (abort && (entry->second.ticket || !hear_program(entry)))
    withdraw(entry, {abi::REASON_ABORTED});
  return true;
}

void Handoffs::forget(const abi::flow_key& flow) {
  const auto entry = waiting_.find(flow);
  if (entry != waiting_.end()) drop(entry);
}

void Handoffs::forget_descriptors(const Waiting& waiting) {
  if (waiting.ticket) flows_.erase(waiting.ticket->fd.get());
  if (waiting.channel) flows_.erase(waiting.channel.get());
  bytes_ -= waiting.bytes;
}

void Handoffs::drop(Entry entry) {
  note_withdrawn(entry->second);
  Waiting waiting = std::move(entry->second);
  forget_descriptors(waiting);
  waiting_.erase(entry);
  if (waiting.connection) offered_.forget(waiting.connection.get());
  close(waiting);
}

}  // namespace tcpmig::agent
