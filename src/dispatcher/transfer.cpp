// SPDX-License-Identifier: MIT
#include "dispatcher/transfer.hpp"

#include <arpa/inet.h>
#include <endian.h>

#include <algorithm>
#include <cstring>

#include <spdlog/spdlog.h>
#include <boost/asio/redirect_error.hpp>
#include <boost/asio/use_awaitable.hpp>

#include "dispatcher/segments.hpp"

namespace tcpmig::dispatcher {
namespace asio = boost::asio;

namespace {

constexpr unsigned kMaxStale = 3;

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

/// A refused take-back that says that the flow is as it was before `first`, our first COMMIT.
bool never_moved(const abi::wire_header& refusal, control::Generation first) {
  switch (refusal.reason) {
    case abi::REASON_TABLE_FULL:
    case abi::REASON_UNKNOWN_NODE:
    case abi::REASON_UNKNOWN_SERVICE:
      return true;
    case abi::REASON_NOT_ENTITLED:  // there is no entry, and another dispatcher may make one
      return control::newer(first, ntohl(refusal.current_generation));
    default:
      return false;
  }
}

}  // namespace

Transfer::Transfer(Worker& worker, const config::Service& service, const config::Pool& pool,
                   Frozen frozen, bool idempotent, Stamps stamps)
    : worker_(worker),
      service_(service),
      pool_(pool),
      frozen_(std::move(frozen)),
      idempotent_(idempotent),
      stamps_(stamps),
      timer_(worker.io()) {}

asio::awaitable<Outcome> Transfer::run(std::size_t first) {
  Shared& shared = worker_.shared();
  generation_ = control::first_generation();
  std::optional<std::size_t> index = first;
  while (index) {
    tried_.insert(*index);
    Verdict verdict = co_await attempt(*index);
    if (verdict == Verdict::kSilent) {
      shared.stats.add(Counter::kSilent);
      send_to_target(abi::WIRE_ABORT);
      verdict = idempotent_ ? Verdict::kNext : co_await insist_on_abort();
    }
    if (verdict == Verdict::kMoved) co_return Outcome{true, 0, {}, {}};
    if (verdict == Verdict::kSilent) co_return co_await give_up(504, "the server did not answer");
    if (verdict == Verdict::kGiveUp)
      co_return co_await give_up(503, "the connection cannot be moved now");
    index = policy::choose(pool_, *index + 1, tried_,
                           [&](config::NodeId node) { return shared.loads.get(node); });
    if (!index) break;  // take_back() counts the generation on itself
    generation_ = control::next_generation(generation_);
    shared.stats.add(Counter::kNextServer);
  }
  co_return co_await give_up(503, "no server would take the connection");
}

/// One server, one generation: COMMIT and its repeats until something is certain or timeouts.transfer is over.
asio::awaitable<Transfer::Verdict> Transfer::attempt(std::size_t index) {
  const config::Timeouts& timeouts = worker_.shared().config.timeouts;
  server_ = &pool_.servers[index];
  commit_to(server_->node_id, server_->port);
  send_all();
  if (attempts_.size() == 1)
    worker_.enter(shared_from_this());  // nothing can come in before this coroutine waits
  const auto deadline = Clock::now() + timeouts.transfer;
  auto delay = timeouts.retry;
  auto repeat_at = Clock::now() + delay;
  while (Clock::now() < deadline) {
    const auto answer = co_await next_answer(std::min(repeat_at, deadline));
    if (answer) {
      if (const auto verdict = judge(*answer)) co_return *verdict;
    } else if (Clock::now() >= repeat_at) {
      worker_.shared().stats.add(Counter::kCommitsRepeated);
      send_all();
      delay *= 2;
      repeat_at = Clock::now() + delay;
    }
  }
  co_return Verdict::kSilent;
}

/// A request that may not run twice: the server must say that it has not opened it, and never will.
asio::awaitable<Transfer::Verdict> Transfer::insist_on_abort() {
  const config::Timeouts& timeouts = worker_.shared().config.timeouts;
  const auto deadline = Clock::now() + timeouts.transfer;
  auto delay = timeouts.retry;
  while (Clock::now() < deadline) {
    const auto answer = co_await next_answer(std::min(Clock::now() + delay, deadline));
    if (answer && answer->header.type == abi::WIRE_ABORTED) co_return Verdict::kNext;
    if (answer) {
      if (const auto verdict = judge(*answer)) co_return *verdict;
      continue;
    }
    send_to_target(abi::WIRE_ABORT);
    delay *= 2;
  }
  co_return Verdict::kSilent;
}

void Transfer::take_back_at(control::Generation generation) {
  generation_ = generation;
  const control::Transfer about{worker_.shared().self.id,
                                worker_.shared().self.id,
                                service_.id,
                                service_.port,
                                worker_.lane(),
                                generation_,
                                client()};
  Snapshot empty = frozen_.snapshot();  // the switch needs no payload
  empty.received.clear();
  messages_ = control::transfer_messages(about, empty);
  messages_.front().header.flags |= abi::WIRE_FLAG_TAKE_BACK;
}

asio::awaitable<bool> Transfer::take_back() {
  const config::Timeouts& timeouts = worker_.shared().config.timeouts;
  take_back_at(control::next_generation(generation_));
  const auto deadline = Clock::now() + timeouts.transfer;
  auto delay = timeouts.retry;
  while (Clock::now() < deadline) {
    send_all();
    const auto repeat_at = std::min(Clock::now() + delay, deadline);
    delay *= 2;
    while (const auto answer = co_await next_answer(repeat_at)) {
      const abi::wire_header& header = answer->header;
      if (ntohs(header.sender) != 0) continue;
      if (header.type == abi::WIRE_RESUMED) {
        worker_.shared().stats.add(Counter::kTakenBack);
        co_return true;
      }
      if (header.type != abi::WIRE_REFUSED) continue;
      if (header.reason == abi::REASON_ALREADY_SPOKE) {
        moved(*answer);
        co_return false;
      }
      if (never_moved(header, attempts_.front().generation)) co_return true;
      if (header.reason == abi::REASON_NOT_ENTITLED) {  // it has left us, and the new owner too
        moved(*answer);
        co_return false;
      }
      if (header.reason == abi::REASON_STALE_GENERATION && ++stale_ <= kMaxStale) {
        take_back_at(control::next_generation(ntohl(header.current_generation)));
        break;  // sent at once; any other refusal waits for its time, or the two of us would play ping-pong
      }
    }
  }
  co_return true;
}

asio::awaitable<Outcome> Transfer::give_up(unsigned status, std::string why) {
  if (sent_ && !co_await take_back()) co_return Outcome{true, 0, {}, {}};
  worker_.consume_captures();
  worker_.leave(*this);
  sys::UniqueFd fd = frozen_.thaw(captures_, [this](std::span<const std::byte> packet) {
    try {
      worker_.shared().tun.inject(packet);
    } catch (const std::exception& error) {
      spdlog::debug("capture not put back: {}", error.what());  // the client sends it again
    }
  });
  co_return Outcome{false, status, std::move(why), std::move(fd)};
}

asio::awaitable<std::optional<Transfer::Answer>> Transfer::next_answer(Clock::time_point deadline) {
  if (answers_.empty()) {
    boost::system::error_code ignored;  // cancelled: an answer has come
    timer_.expires_at(deadline);
    co_await timer_.async_wait(asio::redirect_error(asio::use_awaitable, ignored));
  }
  if (answers_.empty()) co_return std::nullopt;
  Answer answer = std::move(answers_.front());
  answers_.pop_front();
  co_return answer;
}

/// What an answer means for the present attempt; nullopt: nothing yet.
std::optional<Transfer::Verdict> Transfer::judge(const Answer& answer) {
  const abi::wire_header& header = answer.header;
  switch (header.type) {
    case abi::WIRE_RESUMED:
      moved(answer);
      return Verdict::kMoved;
    case abi::WIRE_REFUSED:
      worker_.shared().stats.refused(header.reason);
      return judge_refusal(answer);
    case abi::WIRE_MISSING:
      send_missing(answer);
      return std::nullopt;
    default:
      return std::nullopt;
  }
}

std::optional<Transfer::Verdict> Transfer::judge_refusal(const Answer& answer) {
  const bool by_switch = ntohs(answer.header.sender) == 0;
  switch (answer.header.reason) {
    case abi::REASON_REPLAY:
      return std::nullopt;  // the repeat has a new number
    case abi::REASON_ALREADY_SPOKE:
      moved(answer);
      return Verdict::kMoved;
    case abi::REASON_STALE_GENERATION:
      if (!by_switch) return Verdict::kNext;
      if (++stale_ > kMaxStale) return Verdict::kGiveUp;
      generation_ = control::next_generation(ntohl(answer.header.current_generation));
      commit_to(server_->node_id, server_->port);
      send_all();
      return std::nullopt;
    case abi::REASON_NOT_ENTITLED:
    case abi::REASON_TABLE_FULL:
      return Verdict::kGiveUp;
    default:
      return Verdict::kNext;
  }
}

void Transfer::commit_to(std::uint16_t target, std::uint16_t port) {
  const control::Transfer about{worker_.shared().self.id, target,      service_.id, port,
                                worker_.lane(),           generation_, client()};
  messages_ = control::transfer_messages(about, frozen_.snapshot());
  attempts_.push_back({generation_, server_});
}

void Transfer::send_all() {
  for (control::Outgoing& message : messages_) {
    message.header.sequence = 0;
    worker_.send(message);
  }
  if (stamps_.sent == 0) stamps_.sent = monotonic_ns();
  sent_ = true;
  worker_.shared().stats.add(Counter::kCommitsSent);
}

void Transfer::send_missing(const Answer& answer) {
  for (std::size_t i = 0; i + 2 <= answer.payload.size(); i += 2) {
    const unsigned part = std::to_integer<unsigned>(answer.payload[i]) << 8 |
                          std::to_integer<unsigned>(answer.payload[i + 1]);
    if (part >= messages_.size()) continue;
    messages_[part].header.sequence = 0;
    worker_.send(messages_[part]);
  }
}

void Transfer::send_to_target(std::uint8_t type) {
  control::Outgoing message = messages_.back();
  message.payload = {};
  message.header.type = type;
  message.header.sequence = 0;
  worker_.send(message);
}

void Transfer::send_segment(std::span<const std::byte> segment, bool crafted) {
  control::Outgoing message{};
  abi::wire_header& header = message.header;
  header.type = abi::WIRE_SEGMENT;
  header.flags = crafted ? abi::WIRE_FLAG_CRAFTED : 0;
  header.target = htons(owner_->node_id);
  header.family = client().address.is_ipv4() ? abi::FAMILY_IPV4 : abi::FAMILY_IPV6;
  header.service = htons(service_.id);
  header.generation = htonl(owner_generation_);
  header.client = client().address.raw();
  header.client_port = htons(client().port);
  header.target_port = htons(owner_->port);
  message.payload = segment;
  worker_.send(message);
}

void Transfer::take_answer(const control::Incoming& message) {
  const auto generation = ntohl(message.header.generation);
  const auto sender = ntohs(message.header.sender);
  const bool expected = generation == generation_ &&
                        (sender == 0 || server_ == nullptr || sender == server_->node_id);
  if (has_moved_ || !expected) {
    worker_.shared().stats.add(Counter::kLateAnswers);
    return;
  }
  answers_.push_back({message.header, {message.payload.begin(), message.payload.end()}});
  timer_.cancel();
}

void Transfer::take_capture(CapturedSegment segment) {
  captures_.push_back(std::move(segment));
  if (!has_moved_) return;
  const std::size_t room =
      client().address.is_ipv4() ? abi::WIRE_PAYLOAD_MAX_IPV4 : abi::WIRE_PAYLOAD_MAX_IPV6;
  for (const CapturedSegment& captured : captures_)
    for (const auto& piece : split_segment(captured.bytes, room)) {
      send_segment(piece, false);
      worker_.shared().stats.add(Counter::kCapturesSent);
    }
  captures_.clear();
}

/// "Already spoke" names the generation that has spoken: it need not be the present attempt's, nor the one before (a silent switch
/// may have seen only the first of several).
Transfer::Attempt Transfer::owner_by(const abi::wire_header& answer) const {
  if (answer.type == abi::WIRE_REFUSED)
    for (auto attempt = attempts_.rbegin(); attempt != attempts_.rend(); ++attempt)
      if (attempt->generation == ntohl(answer.current_generation)) return *attempt;
  return attempts_.back();
}

void Transfer::moved(const Answer& answer) {
  take_stamps(stamps_, answer.header, answer.payload);
  const Attempt owner = owner_by(answer.header);
  owner_ = owner.server;
  owner_generation_ = owner.generation;
  has_moved_ = true;
  Shared& shared = worker_.shared();
  shared.stats.transferred(
      {client(), service_.id, owner_->node, owner_->port, owner_generation_, stamps_});
  spdlog::debug("{} moved to {}:{}, generation {}", client().str(), owner_->node, owner_->port,
                owner_generation_);
  worker_.consume_captures();
  if (!captures_.empty()) {  // send what was captured before the move
    CapturedSegment last = std::move(captures_.back());
    captures_.pop_back();
    take_capture(std::move(last));
  }
  shared.grace.after([self = shared_from_this()]() mutable {
    asio::io_context& io = self->worker_.io();
    asio::post(io, [self = std::move(self)] { self->finish(); });
  });
}

void Transfer::send_what_came_late() {
  std::vector<std::byte> late;
  try {
    late = frozen_.late_bytes();
  } catch (const std::system_error& error) {
    spdlog::debug("{} ended behind the lock: {}", client().str(), error.what());  // a RST
  }
  const bool fin = frozen_.late_fin();
  if (late.empty() && !fin) return;
  worker_.shared().stats.add(Counter::kLateBytes, late.size());
  const std::size_t room =
      client().address.is_ipv4() ? abi::WIRE_PAYLOAD_MAX_IPV4 : abi::WIRE_PAYLOAD_MAX_IPV6;
  for (const auto& piece : craft_segments(frozen_.snapshot(), late, fin, room))
    send_segment(piece, true);
}

void Transfer::finish() {
  worker_.consume_captures();
  send_what_came_late();
  worker_.leave(*this);
  frozen_.commit();
}

}  // namespace tcpmig::dispatcher
