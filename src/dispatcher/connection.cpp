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
#include <boost/asio/posix/stream_descriptor.hpp>
#include <boost/asio/redirect_error.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/use_awaitable.hpp>

#include "dispatcher/answers.hpp"
#include "dispatcher/transfer.hpp"
#include "http/request_head.hpp"

namespace tcpmig::dispatcher {
namespace asio = boost::asio;
using Descriptor = asio::posix::stream_descriptor;

namespace {

constexpr std::size_t kReadSize = 16 * 1024;
constexpr std::size_t kDrainLimit = 16 << 20;
constexpr std::chrono::seconds kLinger{2};

/// A descriptor and the one deadline of what is being waited for on it.
class Waiter {
 public:
  Waiter(asio::io_context& io, sys::UniqueFd fd)
      : descriptor_(std::make_shared<Descriptor>(io, fd.release())), timer_(io) {}

  void expire_after(std::chrono::milliseconds time) {
    timer_.expires_after(time);
    timer_.async_wait(
        [weak = std::weak_ptr(descriptor_), expired = expired_](boost::system::error_code error) {
          const auto descriptor = weak.lock();
          if (error || !descriptor) return;
          *expired = true;
          // It may have been released already, in the same turn of the loop: cancel() without a code would throw.
          boost::system::error_code ignored;
          descriptor->cancel(ignored);
        });
  }
  [[nodiscard]] bool expired() const { return *expired_; }
  [[nodiscard]] int fd() const { return descriptor_->native_handle(); }
  /// False: the deadline has passed.
  asio::awaitable<bool> readable() {
    boost::system::error_code error;
    if (!*expired_)
      co_await descriptor_->async_wait(Descriptor::wait_read,
                                       asio::redirect_error(asio::use_awaitable, error));
    co_return !*expired_ && !error;
  }
  sys::UniqueFd release() {
    timer_.cancel();
    return sys::UniqueFd(descriptor_->release());
  }

 private:
  std::shared_ptr<Descriptor> descriptor_;
  asio::steady_timer timer_;
  std::shared_ptr<bool> expired_ = std::make_shared<bool>(false);
};

/// What came of waiting for a head.
struct Reading {
  std::vector<std::byte> bytes;
  std::optional<http::RequestHead> head;
  unsigned status = 0;  ///< of our answer; 0 with no head: the client is gone
  std::string why;
};

/// Reads what is there. False: the client has ended or broken the connection.
bool read_some(int fd, std::vector<std::byte>& into, bool& again) {
  std::array<std::byte, kReadSize>
      chunk;  // not in `into`: a client that is silent shall cost no buffer
  const ssize_t n = ::recv(fd, chunk.data(), chunk.size(), MSG_DONTWAIT);
  if (n > 0) into.insert(into.end(), chunk.begin(), chunk.begin() + n);
  again = n < 0 && (errno == EAGAIN || errno == EINTR);
  return n > 0 || again;
}

asio::awaitable<Reading> read_head(Waiter& waiter, std::size_t limit) {
  Reading reading;
  http::HeadReader reader(limit);
  for (;;) {
    bool again = false;
    if (!read_some(waiter.fd(), reading.bytes, again)) co_return reading;
    if (again) {
      if (co_await waiter.readable()) continue;
      reading.status = waiter.expired() ? 408 : 0;
      reading.why = "no complete request head in time";
      co_return reading;
    }
    switch (reader.feed(reading.bytes)) {
      case http::Progress::kMore:
        break;
      case http::Progress::kComplete:
        reading.head = reader.head();
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
  Waiter waiter(worker.io(), std::move(fd));
  waiter.expire_after(kLinger);
  std::array<std::byte, kReadSize> sink{};
  std::size_t drained = 0;
  while (drained < kDrainLimit) {
    const ssize_t n = ::recv(waiter.fd(), sink.data(), sink.size(), MSG_DONTWAIT);
    if (n == 0 || (n < 0 && errno != EAGAIN && errno != EINTR)) co_return;
    if (n > 0) {
      drained += static_cast<std::size_t>(n);
    } else if (!co_await waiter.readable()) {
      co_return;
    }
  }
}

/// A client that has sent its request's head, and perhaps more.
struct Asking {
  sys::UniqueFd fd;
  std::vector<std::byte> bytes;
  http::RequestHead head;
  Stamps stamps;
};

/// The chosen pool and the first server of it.
struct Choice {
  const config::Pool* pool = nullptr;
  std::size_t index = 0;
};

std::optional<Choice> choose(Shared& shared, const config::Service& service,
                             const http::RequestHead& head) {
  const config::Route* route = policy::match(service, head);
  if (route == nullptr) return std::nullopt;
  const config::Pool& pool = shared.pool(*route);
  const auto index = policy::choose(pool, shared.next_turn(pool), {},
                                    [&](config::NodeId node) { return shared.loads.get(node); });
  if (!index) return std::nullopt;
  return Choice{&pool, *index};
}

asio::awaitable<void> transfer(Worker& worker, Asking asking, const config::Service& service,
                               Choice choice) {
  Shared& shared = worker.shared();
  const bool to_head = asking.head.method == "HEAD";
  const auto unmovable = [&](sys::UniqueFd fd, const std::string& reason) {
    shared.stats.freeze_refused(reason);
    spdlog::debug("not frozen: {}", reason);
    return answer(worker, std::move(fd),
                  {503, "the connection cannot be moved: " + reason, to_head});
  };
  auto frozen = try_freeze(std::move(asking.fd), std::move(asking.bytes), worker.kit());
  if (!frozen) {
    co_await unmovable(std::move(frozen.error().fd), frozen.error().reason);
    co_return;
  }
  if (frozen->snapshot().received.size() > abi::WIRE_SNAPSHOT_MAX) {
    co_await unmovable(frozen->thaw({}, {}), "more received bytes than a transfer carries");
    co_return;
  }
  asking.stamps.frozen = monotonic_ns();
  shared.stats.add(Counter::kFrozen);
  shared.stats.in_transfer.fetch_add(1);
  const auto task = std::make_shared<Transfer>(worker, service, *choice.pool, std::move(*frozen),
                                               asking.head.is_idempotent(), asking.stamps);
  Outcome outcome = co_await task->run(choice.index);
  shared.stats.in_transfer.fetch_sub(1);
  if (outcome.moved) co_return;
  OwnAnswer own{outcome.status, std::move(outcome.why), to_head};
  co_await answer(worker, std::move(outcome.fd), std::move(own));
}

}  // namespace

asio::awaitable<void> serve(Worker& worker, sys::UniqueFd fd, const config::Service& service,
                            std::uint64_t accepted_ns) {
  Shared& shared = worker.shared();
  if (shared.stats.waiting.fetch_add(1) >=
      static_cast<std::int64_t>(shared.config.limits.waiting)) {
    shared.stats.waiting.fetch_sub(1);
    shared.stats.add(Counter::kTurnedAway);
    OwnAnswer busy{503, "too many connections wait for their request"};
    co_await answer(worker, std::move(fd), std::move(busy));
    co_return;
  }
  Waiter waiter(worker.io(), std::move(fd));
  waiter.expire_after(shared.config.timeouts.head);
  Reading reading = co_await read_head(waiter, shared.config.limits.head_bytes);
  const Stamps stamps{.accepted = accepted_ns, .head = monotonic_ns()};
  shared.stats.waiting.fetch_sub(1);
  sys::UniqueFd client = waiter.release();
  if (!reading.head) {
    OwnAnswer own{reading.status, std::move(reading.why)};
    if (own.status != 0)
      co_await answer(worker, std::move(client), std::move(own));
    else
      shared.stats.add(Counter::kGoneWaiting);
    co_return;
  }
  shared.stats.add(Counter::kHeads);
  if (const auto choice = choose(shared, service, *reading.head)) {
    Asking asking{std::move(client), std::move(reading.bytes), std::move(*reading.head), stamps};
    co_await transfer(worker, std::move(asking), service, *choice);
  } else {
    OwnAnswer own{404, "no route for this request", reading.head->method == "HEAD"};
    co_await answer(worker, std::move(client), std::move(own));
  }
}

}  // namespace tcpmig::dispatcher
