// SPDX-License-Identifier: MIT
#include "dispatcher/transfer.hpp"

#include <arpa/inet.h>
#include <endian.h>
#include <sys/socket.h>

#include <cstring>

#include <spdlog/spdlog.h>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/redirect_error.hpp>
#include <boost/asio/use_awaitable.hpp>

#include "conn/append_segment.hpp"
#include "conn/segment.hpp"
#include "control/client_segments.hpp"
#include "control/transfer_messages.hpp"

namespace tcpmig::dispatcher {
namespace asio = boost::asio;
using Clock = std::chrono::steady_clock;

namespace {

/// An answer of the switch about a take-back of ours, or of a server about its transfer, carries the stamps where it can.
void take_stamps(Stamps& stamps, const abi::wire_header& header,
                 std::span<const std::byte> payload) {
  stamps.confirmed = monotonic_ns();
  stamps.committed = be64toh(header.switch_ns);
  abi::wire_resumed times{};
  if (ntohs(header.sender) == 0 || payload.size() != sizeof times) return;
  std::memcpy(&times, payload.data(), sizeof times);
  stamps.committed = be64toh(times.switch_ns);
  stamps.received = be64toh(times.received_ns);
  stamps.opened = be64toh(times.opened_ns);
}

constexpr int kLatePatience =
    16;  // times timeouts.transfer; late bytes are rare, so this costs nothing

control::TransferMachine::Rules rules_of(const config::Timeouts& timeouts, bool idempotent,
                                         const control::AnswerTime& answers) {
  const auto most = std::max(timeouts.retry, timeouts.transfer / 4);
  return {.transfer = timeouts.transfer,
          .retry = timeouts.retry,
          .first_retry = std::chrono::duration_cast<std::chrono::milliseconds>(
              answers.patience(timeouts.retry, most)),
          .idempotent = idempotent};
}

}  // namespace

Transfer::Transfer(Worker& worker, const config::Service& service, const config::Pool& pool,
                   Frozen frozen, bool idempotent, Stamps stamps, std::size_t first)
    : worker_(worker),
      counted_(worker.shared().stats.in_transfer),
      service_(service),
      pool_(pool),
      frozen_(std::move(frozen)),
      offered_(frozen_.snapshot()),
      stamps_(stamps),
      first_{first, pool.servers[first].node_id},
      machine_(
          *this,
          rules_of(worker.shared().config.timeouts, idempotent, worker.answer_time(first_.node)),
          control::first_generation()),
      captures_(worker.shared().config.limits.hold_packets, abi::WIRE_SNAPSHOT_MAX),
      boot_(worker.shared().switch_boot.load(std::memory_order_relaxed)),
      timer_(worker.io()) {}

asio::awaitable<Outcome> Transfer::run() {
  worker_.enter(shared_from_this());  // nothing can come in before this coroutine waits
  machine_.start(first_, Clock::now());
  while (!machine_.over()) {
    boost::system::error_code ignored;  // cancelled: an answer has come
    timer_.expires_at(machine_.due());
    co_await timer_.async_wait(asio::redirect_error(asio::use_awaitable, ignored));
    machine_.tick(Clock::now());
  }
  if (machine_.state() == control::TransferState::kReturned) co_return returned();
  moved();
  Outcome outcome;
  outcome.moved = true;
  co_return outcome;
}

void Transfer::take_answer(const control::Incoming& message) {
  Stats& stats = worker_.shared().stats;
  const abi::wire_header& header = message.header;
  if (header.sender == 0 && header.reason == abi::REASON_OTHER_BOOT)  // sooner than by a heartbeat
    worker_.shared().switch_boot.store(ntohl(header.detail), std::memory_order_relaxed);
  if (!machine_.receive(header, message.payload, Clock::now())) {
    stats.add(Counter::kLateAnswers);
    return;
  }
  if (header.type == abi::WIRE_REFUSED) stats.refused(header.reason);
  if (machine_.state() == control::TransferState::kMoved) {
    take_stamps(stamps_, header, message.payload);
    if (offers_.size() == 1 && !left_)
      worker_.answer_time(first_.node)
          .took(std::chrono::microseconds((stamps_.confirmed - stamps_.sent) / 1'000));
  }
  timer_.cancel();
}

control::Transfer Transfer::about(std::uint16_t target, std::uint16_t port,
                                  control::Generation generation) const {
  return {worker_.shared().self.id, target,     service_.id, port,
          worker_.lane(),           generation, client()};
}

void Transfer::stamp(control::Outgoing& message) const {
  message.header.detail = htonl(boot_);
  message.header.current_generation = htonl(machine_.first());
}

void Transfer::send_part(control::Outgoing& message) {
  message.header.sequence = 0;
  worker_.send(message);
}

void Transfer::repeat() {
  for (control::Outgoing& message : messages_) send_part(message);
  if (stamps_.sent == 0) stamps_.sent = monotonic_ns();
  worker_.shared().stats.add(Counter::kCommitsSent);
}

/// What is captured by now goes with the snapshot. Behind it, it would come after the new owner's first acknowledgements, which let
/// the client send what follows straight to the owner. But a COMMIT of one datagram stays one, which needs no agent; and what is
/// handed over by descriptor is not acknowledged by its resume.
void Transfer::append_captures(const config::PoolServer& target) {
  worker_.consume_captures();
  const std::size_t one = control::segment_room(client());
  const std::size_t most =
      offered_.received.size() <= one ? one : std::size_t{abi::WIRE_SNAPSHOT_MAX};
  for (const CapturedSegment& captured : captures_.all()) {
    if (!target.handoff.empty() || offered_.received.size() + captured.bytes.size() > most) return;
    conn::append_segment(offered_, captured.bytes);
  }
}

void Transfer::offer(const control::Attempt& attempt) {
  append_captures(server(attempt));
  offers_[attempt.generation] = {server(attempt).node_id, offered_.rcv_nxt};
  worker_.shared().loads.assigned(server(attempt).node_id);
  messages_ = control::transfer_messages(
      about(server(attempt).node_id, server(attempt).port, attempt.generation), offered_);
  for (control::Outgoing& message : messages_) stamp(message);
  repeat();
}

void Transfer::take_back(control::Generation generation) {
  messages_ = {control::take_back_message(
      about(worker_.shared().self.id, service_.port, generation), offered_)};
  stamp(messages_.front());
  repeat();
}

void Transfer::resend(std::uint16_t part) {
  if (part < messages_.size()) send_part(messages_[part]);
}

void Transfer::abort(const control::Attempt&) {
  control::Outgoing message = control::abort_message(messages_.back());
  send_part(message);
}

std::optional<control::Candidate> Transfer::next(const std::set<std::size_t>& tried) {
  Shared& shared = worker_.shared();
  const auto load = [&](config::NodeId node) { return shared.loads.get(node); };
  std::set<std::size_t> excluded = policy::without_agent(pool_, load);
  excluded.insert(tried.begin(), tried.end());
  const auto index = policy::choose(pool_, shared.next_turn(pool_), excluded, load);
  if (!index) return std::nullopt;
  return control::Candidate{*index, pool_.servers[*index].node_id};
}

bool Transfer::boot_changed() const {
  return boot_ != 0 && boot_ != worker_.shared().switch_boot.load(std::memory_order_relaxed);
}

void Transfer::follow_boot() {
  boot_ = worker_.shared().switch_boot.load(std::memory_order_relaxed);
}

void Transfer::note(Note note) {
  Stats& stats = worker_.shared().stats;
  switch (note) {
    case Note::kRepeated:
      return stats.add(Counter::kCommitsRepeated);
    case Note::kSilent:
      return stats.add(Counter::kSilent);
    case Note::kRetriedOnSilence:
      return stats.add(Counter::kRetriedOnSilence);
    case Note::kNextServer:
      return stats.add(Counter::kNextServer);
    case Note::kTakenBack:
      return stats.add(Counter::kTakenBack);
    case Note::kLeft:
      left_ = true;
      return stats.add(Counter::kLeft);
  }
}

void Transfer::send_segment(std::span<const std::byte> segment, bool crafted) {
  const config::PoolServer& owner = server(machine_.owner());
  control::Outgoing message = control::segment_message(
      about(owner.node_id, owner.port, machine_.owner().generation), segment, crafted);
  worker_.send(message);
}

void Transfer::take_capture(CapturedSegment segment) {
  switch (captures_.add(frozen_.snapshot(), std::move(segment))) {
    case control::Captures::Outcome::kDamaged:
      return worker_.shared().stats.add(Counter::kCapturesDamaged);
    case control::Captures::Outcome::kFull:
      return worker_.shared().stats.add(Counter::kCapturesFull);
    case control::Captures::Outcome::kKept:
      if (machine_.state() == control::TransferState::kMoved) send_captures();
  }
}

void Transfer::take_handed_back(const control::Incoming& message) {
  const auto offer = offers_.find(ntohl(message.header.generation));
  if (offer == offers_.end() || offer->second.node != ntohs(message.header.sender))
    return worker_.shared().stats.add(Counter::kLateAnswers);
  worker_.shared().stats.add(Counter::kHandedBack);
  const Snapshot& frozen = frozen_.snapshot();
  take_capture(
      {.cookie = cookie(), .bytes = conn::readdress(frozen.peer, frozen.local, message.payload)});
}

void Transfer::send_captures() {
  const Seq end = offers_.at(machine_.owner().generation).end;
  for (const auto& piece : captures_.take_from(end, control::segment_room(client()))) {
    send_segment(piece, false);
    worker_.shared().stats.add(Counter::kCapturesSent);
  }
}

void Transfer::moved() {
  if (left_)
    return asio::co_spawn(
        worker_.io(), [self = shared_from_this()] { return self->end_unknown(); }, log_end);
  const control::Attempt& owner = machine_.owner();
  Shared& shared = worker_.shared();
  shared.stats.transferred(
      {client(), service_.id, server(owner).node, server(owner).port, owner.generation, stamps_});
  spdlog::debug("{} moved to {}:{}, generation {}", client().str(), server(owner).node,
                server(owner).port, owner.generation);
  send_captures();
  worker_.consume_captures();
  shared.grace.after([self = shared_from_this()] {
    asio::co_spawn(self->worker_.io(), [self] { return self->finish(); }, log_end);
  });
}

/// The switch has lost its table, and the server does not say whether it has the connection. When it has had time to, the kernel ends the
/// connection by RST; the switch lets that through only if nobody else has turned out to own it.
asio::awaitable<void> Transfer::end_unknown() {
  timer_.expires_after(kLatePatience * worker_.shared().config.timeouts.transfer);
  co_await timer_.async_wait(asio::use_awaitable);
  worker_.consume_captures();
  worker_.leave(*this);
  const sys::UniqueFd fd = frozen_.thaw({}, [](std::span<const std::byte>) {});
  const linger at_once{1, 0};
  ::setsockopt(fd.get(), SOL_SOCKET, SO_LINGER, &at_once, sizeof at_once);
}

Outcome Transfer::returned() {
  worker_.consume_captures();
  worker_.leave(*this);
  std::vector<std::byte> received = frozen_.snapshot().received;
  sys::UniqueFd fd = frozen_.thaw(captures_.all(), [this](std::span<const std::byte> packet) {
    try {
      worker_.shared().tun.inject(packet);
    } catch (const std::exception& error) {
      spdlog::debug("capture not put back: {}", error.what());  // the client sends it again
    }
  });
  return {.moved = false,
          .why = machine_.failure(),
          .fd = std::move(fd),
          .received = std::move(received)};
}

std::vector<std::vector<std::byte>> Transfer::late_segments() {
  std::vector<std::byte> late;
  bool fin = false;
  try {
    late = frozen_.late_bytes();
    fin = frozen_.late_fin();
  } catch (const std::system_error& error) {
    spdlog::debug("{} ended behind the lock: {}", client().str(), error.what());  // a RST
  }
  if (late.empty() && !fin) return {};
  worker_.shared().stats.add(Counter::kLateBytes, late.size());
  return control::craft_segments(frozen_.snapshot(), late, fin, control::segment_room(client()));
}

asio::awaitable<void> Transfer::finish() {
  worker_.consume_captures();
  const auto late = late_segments();
  const config::Timeouts& timeouts = worker_.shared().config.timeouts;
  const auto deadline = Clock::now() + kLatePatience * timeouts.transfer;
  // These bytes are acknowledged: nobody else will ever send them again, and a datagram may be lost, or the agent be
  // away for a restart. TCP drops what it has already.
  for (auto pause = timeouts.retry; !late.empty() && Clock::now() < deadline; pause *= 2) {
    for (const auto& segment : late) send_segment(segment, true);
    timer_.expires_after(pause);
    co_await timer_.async_wait(asio::use_awaitable);
  }
  frozen_.commit();
  worker_.consume_captures();  // what the lock has seen up to the very end
  worker_.leave(*this);
}

}  // namespace tcpmig::dispatcher
