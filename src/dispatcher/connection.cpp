// SPDX-License-Identifier: MIT
#include "dispatcher/connection.hpp"

#include <sys/socket.h>

#include <array>
#include <chrono>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include <spdlog/spdlog.h>
#include "dispatcher/answers.hpp"
#include "dispatcher/relaying.hpp"
#include "dispatcher/transfer.hpp"
#include "http/request_head.hpp"
#include "sys/waiter.hpp"

namespace tcpmig::dispatcher {
namespace asio = boost::asio;

namespace {

constexpr std::size_t kDrainLimit = 16 << 20;
constexpr std::chrono::seconds kLinger{2};

/// What came of waiting for a head.
struct Reading {
  std::vector<std::byte> bytes;
  std::optional<http::RequestHead> head;
  std::size_t head_length = 0;
  unsigned status = 0;  ///< of our answer; 0 with no head: the client is gone
  std::string why;
};

/// What there is to read, in `buffer`; empty: nothing yet; nullopt: the client has ended or broken the connection.
std::optional<std::span<const std::byte>> read_some(int fd, std::span<std::byte> buffer) {
  const ssize_t n = ::recv(fd, buffer.data(), buffer.size(), MSG_DONTWAIT);
  if (n > 0) return buffer.first(static_cast<std::size_t>(n));
  if (n < 0 && (errno == EAGAIN || errno == EINTR)) return std::span<const std::byte>();
  return std::nullopt;
}

/// Most heads are there when the connection is accepted: only a client that has to be waited for goes to epoll, and has a deadline.
asio::awaitable<Reading> read_head(Worker& worker, sys::UniqueFd& fd,
                                   std::optional<sys::Waiter>& waiter) {
  const config::Config& config = worker.shared().config;
  const std::size_t limit = config.limits.head_bytes;
  Reading reading;
  http::HeadReader reader(limit);
  for (;;) {
    const auto chunk = read_some(waiter ? waiter->fd() : fd.get(), worker.read_buffer());
    if (!chunk) co_return reading;
    reading.bytes.insert(reading.bytes.end(), chunk->begin(), chunk->end());
    if (chunk->empty()) {
      if (!waiter) {
        waiter.emplace(worker.io(), std::move(fd));
        waiter->expire_after(config.timeouts.head);
      }
      if (co_await waiter->readable()) continue;
      reading.status = waiter->expired() ? 408 : 0;
      reading.why = "no complete request head in time";
      co_return reading;
    }
    switch (reader.feed(reading.bytes)) {
      case http::Progress::kMore:
        break;
      case http::Progress::kComplete:
        reading.head = reader.head();
        reading.head_length = reader.head_length();
        co_return reading;
      case http::Progress::kBad:
        reading.status = 400;
        reading.why = reader.error();
        co_return reading;
      case http::Progress::kTooLarge:
        reading.status = 431;
        reading.why = "the request head is larger than " + std::to_string(limit) + " bytes";
        co_return reading;
    }
  }
}

// In what follows no aggregate is made inside a co_await expression: g++ 12 destroys such a temporary
// twice.

/// Sends an answer of our own and closes so that the client can read it: a close with unread data
/// would be a RST, and that may overtake the answer. So: no more from us, then read and forget until
/// the client ends, within bounds.
asio::awaitable<void> answer(Worker& worker, sys::UniqueFd fd, OwnAnswer own) {
  worker.shared().stats.answered(own.status);
  const std::string text = to_message(own);
  if (::send(fd.get(), text.data(), text.size(), MSG_DONTWAIT | MSG_NOSIGNAL) < 0) co_return;
  ::shutdown(fd.get(), SHUT_WR);
  sys::Waiter waiter(worker.io(), std::move(fd));
  waiter.expire_after(kLinger);
  std::size_t drained = 0;
  while (drained < kDrainLimit) {
    const auto chunk = read_some(waiter.fd(), worker.read_buffer());
    if (!chunk) co_return;
    drained += chunk->size();
    if (chunk->empty() && !co_await waiter.readable()) co_return;
  }
}

/// A client that has sent its request's head, and perhaps more.
struct Asking {
  sys::UniqueFd fd;
  std::vector<std::byte> bytes;
  http::RequestHead head;
  std::size_t head_length = 0;
  Stamps stamps;
};

/// The chosen pool and the first server of it; without one, none has an agent.
struct Choice {
  const config::Pool* pool = nullptr;
  std::optional<std::size_t> index;
};

std::optional<Choice> choose(Shared& shared, const config::Service& service,
                             const http::RequestHead& head) {
  const config::Route* route = policy::match(service, head);
  if (route == nullptr) return std::nullopt;
  const config::Pool& pool = shared.pool(*route);
  const auto load = [&](config::NodeId node) { return shared.loads.get(node); };
  return Choice{
      &pool, policy::choose(pool, shared.next_turn(pool), policy::without_agent(pool, load), load)};
}

using Failure = control::TransferMachine::Failure;

std::string text_of(Failure failure) {
  switch (failure) {
    case Failure::kNoAnswer:
      return "the server did not answer";
    case Failure::kCannotMove:
      return "the switch refuses to move it";
    case Failure::kNoServer:
    case Failure::kNone:
      break;
  }
  return "no server would take it";
}

/// For a connection that cannot be moved: relayed where the pool allows it, else answered.
asio::awaitable<void> stay(Worker& worker, const config::Service& service, const config::Pool& pool,
                           Relayed connection, std::string reason, bool to_head) {
  if (pool.relay || pool.relay_fallback)
    connection = co_await relay_to_pool(worker, service, pool, std::move(connection), reason);
  if (!connection.fd) co_return;
  OwnAnswer own{503, "the connection cannot be moved: " + reason, to_head};
  if (pool.relay) own.why = "no server answers";
  co_await answer(worker, std::move(connection.fd), std::move(own));
}

/// Frozen, as far as the connection allows; else what is left of it, and why.
struct Freezing {
  std::optional<Frozen> frozen;
  Relayed connection;
  std::string reason;
};

Freezing freeze_for_transfer(Worker& worker, Asking& asking) {
  Freezing result;
  auto frozen =
      try_freeze(std::move(asking.fd), std::move(asking.bytes), worker.kit(), Scope::kRequest);
  if (!frozen) {
    result.connection.fd = std::move(frozen.error().fd);
    result.connection.received = std::move(frozen.error().consumed);
    result.reason = std::move(frozen.error().reason);
  } else if (frozen->snapshot().received.size() > abi::WIRE_SNAPSHOT_MAX) {
    result.connection.received = frozen->snapshot().received;
    result.connection.fd = frozen->thaw({}, {});
    result.reason = "more received bytes than a transfer carries";
  } else {
    result.frozen = std::move(*frozen);
  }
  return result;
}

asio::awaitable<void> transfer(Worker& worker, Asking asking, const config::Service& service,
                               Choice choice) {
  Shared& shared = worker.shared();
  const bool to_head = asking.head.method == "HEAD";
  Freezing freezing = freeze_for_transfer(worker, asking);
  freezing.connection.head_length = asking.head_length;
  if (!freezing.frozen) {
    shared.stats.freeze_refused(freezing.reason);
    co_await stay(worker, service, *choice.pool, std::move(freezing.connection), freezing.reason,
                  to_head);
    co_return;
  }
  asking.stamps.frozen = monotonic_ns();
  shared.stats.add(Counter::kFrozen);
  const bool may_repeat = asking.head.is_idempotent() && choice.pool->retry_on_silence;
  auto task = std::make_shared<Transfer>(worker, service, *choice.pool, std::move(*freezing.frozen),
                                         may_repeat, asking.stamps, *choice.index);
  Outcome outcome = co_await task->run();
  task.reset();
  if (outcome.moved) co_return;
  const std::string reason = text_of(outcome.why);
  if (outcome.why == Failure::kNoAnswer) {  // it may have been executed: nobody gets it again
    OwnAnswer own{504, reason, to_head};
    co_await answer(worker, std::move(outcome.fd), std::move(own));
    co_return;
  }
  Relayed connection;
  connection.fd = std::move(outcome.fd);
  connection.received = std::move(outcome.received);
  connection.head_length = asking.head_length;
  co_await stay(worker, service, *choice.pool, std::move(connection), reason, to_head);
}

/// Moves it, or relays it where the pool says so, or nothing can be moved to it.
asio::awaitable<void> pass_on(Worker& worker, Asking asking, const config::Service& service,
                              Choice choice) {
  if (!choice.pool->relay && choice.index) {
    co_await transfer(worker, std::move(asking), service, choice);
    co_return;
  }
  Relayed connection;
  connection.fd = std::move(asking.fd);
  connection.received = std::move(asking.bytes);
  connection.head_length = asking.head_length;
  std::string reason = choice.pool->relay ? "pool mode" : "no agent on any server";
  const bool to_head = asking.head.method == "HEAD";
  co_await stay(worker, service, *choice.pool, std::move(connection), std::move(reason), to_head);
}

/// Waits for the request's head, within limits.waiting and timeouts.head.
asio::awaitable<Reading> wait_for_head(Worker& worker, sys::UniqueFd& fd) {
  Shared& shared = worker.shared();
  const Counted waiting(shared.stats.waiting);
  if (shared.stats.waiting.load() > static_cast<std::int64_t>(shared.config.limits.waiting)) {
    shared.stats.add(Counter::kTurnedAway);
    Reading full;
    full.status = 503;
    full.why = "too many connections wait for their request";
    co_return full;
  }
  std::optional<sys::Waiter> waiter;
  Reading reading = co_await read_head(worker, fd, waiter);
  if (waiter) fd = waiter->release();
  co_return reading;
}

}  // namespace

asio::awaitable<void> serve(Worker& worker, sys::UniqueFd fd, const config::Service& service,
                            std::uint64_t accepted_ns) {
  Shared& shared = worker.shared();
  Reading reading = co_await wait_for_head(worker, fd);
  const Stamps stamps{.accepted = accepted_ns, .head = monotonic_ns()};
  if (!reading.head) {
    OwnAnswer own{reading.status, std::move(reading.why)};
    if (own.status != 0)
      co_await answer(worker, std::move(fd), std::move(own));
    else
      shared.stats.add(Counter::kGoneWaiting);
    co_return;
  }
  shared.stats.add(Counter::kHeads);
  if (shared.stopping.load()) {
    OwnAnswer own{503, "the dispatcher is going down", reading.head->method == "HEAD"};
    co_await answer(worker, std::move(fd), std::move(own));
    co_return;
  }
  if (const auto choice = choose(shared, service, *reading.head)) {
    Asking asking{std::move(fd), std::move(reading.bytes), std::move(*reading.head),
                  reading.head_length, stamps};
    co_await pass_on(worker, std::move(asking), service, *choice);
  } else {
    OwnAnswer own{404, "no route for this request", reading.head->method == "HEAD"};
    co_await answer(worker, std::move(fd), std::move(own));
  }
}

}  // namespace tcpmig::dispatcher
