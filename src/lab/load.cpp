// SPDX-License-Identifier: MIT
#include "lab/load.hpp"

#include <netinet/tcp.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#include <algorithm>
#include <cstring>
#include <memory>
#include <numeric>

#include "lab/interrupt.hpp"
#include "sys/check.hpp"
#include "sys/netns.hpp"
#include "sys/unique_fd.hpp"

namespace tcpmig::lab {
namespace {

using Clock = std::chrono::steady_clock;

/// One request under way. Sockets are non-blocking; the request is short enough for one send().
struct Request {
  sys::UniqueFd fd;
  const LoadItem* item = nullptr;
  Clock::time_point begun;
  bool sent = false;
  bool in_body = false;
  std::string head;
  std::size_t received = 0;  ///< of the body
  std::string failure;

  /// Compares, so that a wrong byte is found, not only a wrong length.
  void take_body(const char* bytes, std::size_t size) {
    const std::string& expected = item->expected;
    if (received + size > expected.size() ||
        std::memcmp(bytes, expected.data() + received, size) != 0)
      failure = "wrong bytes at " + std::to_string(received) + " of " + item->path;
    received += size;
  }

  void take(const char* bytes, std::size_t size) {
    if (in_body) return take_body(bytes, size);
    head.append(bytes, size);
    const auto end = head.find("\r\n\r\n");
    if (end == std::string::npos) return;
    in_body = true;
    const std::string rest = head.substr(end + 4);
    head.resize(end + 4);
    if (head.find(" 200 ") > head.find("\r\n"))
      failure = "answered " + head.substr(0, head.find("\r\n"));
    if (!rest.empty() && failure.empty()) take_body(rest.data(), rest.size());
  }

  void at_end() {
    if (!in_body)
      failure = "closed without an answer";
    else if (received != item->expected.size())
      failure = "ended after " + std::to_string(received) + " of " +
                std::to_string(item->expected.size()) + " bytes";
  }
};

class Run {
 public:
  explicit Run(const LoadPlan& plan)
      : plan_(plan),
        epoll_(sys::check("epoll_create1", ::epoll_create1(EPOLL_CLOEXEC))),
        slots_(plan.parallel) {
    for (const LoadItem& item : plan.items) weights_ += item.weight;
  }

  LoadResult run() {
    const sys::EnterNetns inside(plan_.netns);
    const auto begun = Clock::now();
    for (auto& slot : slots_) begin(slot);
    while (result_.completed + result_.failed < plan_.requests) {
      step();
      throw_if_interrupted();
      if (Clock::now() - begun > plan_.deadline) break;
      expire();
    }
    for (auto& slot : slots_)
      if (slot) end(slot, "not done when the run's time was over");
    result_.failed = plan_.requests - result_.completed;
    result_.took = Clock::now() - begun;
    std::sort(result_.latency.begin(), result_.latency.end());
    return std::move(result_);
  }

 private:
  using Slot = std::unique_ptr<Request>;

  /// A fixed sequence with the wanted shares in every stretch: 37 and the sum of weights have no
  /// common factor for sums like 100 or 20.
  const LoadItem& choose() {
    unsigned point = (started_ * 37U) % weights_;
    for (const LoadItem& item : plan_.items) {
      if (point < item.weight) return item;
      point -= item.weight;
    }
    return plan_.items.back();
  }

  void begin(Slot& slot) {
    if (started_ >= plan_.requests) return;
    slot = std::make_unique<Request>();
    slot->item = &choose();
    ++started_;
    slot->begun = Clock::now();
    const auto [address, length] = plan_.target.to_sockaddr();
    slot->fd.reset(sys::check(
        "socket", ::socket(address.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0)));
    const int on = 1;
    ::setsockopt(slot->fd.get(), IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    if (::connect(slot->fd.get(), reinterpret_cast<const sockaddr*>(&address), length) != 0 &&
        errno != EINPROGRESS)
      return end(slot, std::string("connect: ") + std::strerror(errno));
    epoll_event event{};
    event.events = EPOLLIN | EPOLLOUT | EPOLLET;
    event.data.ptr = &slot;
    sys::check("epoll_ctl", ::epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, slot->fd.get(), &event));
  }

  void end(Slot& slot, const std::string& failure) {
    if (failure.empty()) {
      ++result_.completed;
      result_.latency.push_back(Clock::now() - slot->begun);
    } else {
      ++result_.failed;
      if (result_.failures.size() < 10) result_.failures.push_back(failure);
    }
    slot.reset();
    ended_ = true;
  }

  void send_request(Slot& slot) {
    int error = 0;
    socklen_t size = sizeof error;
    ::getsockopt(slot->fd.get(), SOL_SOCKET, SO_ERROR, &error, &size);
    if (error != 0) return end(slot, std::string("connect: ") + std::strerror(error));
    const std::string request =
        "GET " + slot->item->path + " HTTP/1.1\r\nHost: lab\r\nConnection: close\r\n\r\n";
    if (::send(slot->fd.get(), request.data(), request.size(), MSG_NOSIGNAL) !=
        static_cast<ssize_t>(request.size()))
      return end(slot, std::string("send: ") + std::strerror(errno));
    slot->sent = true;
  }

  void receive(Slot& slot) {
    while (slot) {
      const ssize_t got = ::recv(slot->fd.get(), buffer_.data(), buffer_.size(), 0);
      if (got < 0 && errno == EAGAIN) return;
      if (got < 0) return end(slot, std::string("recv: ") + std::strerror(errno));
      if (got == 0)
        slot->at_end();
      else
        slot->take(buffer_.data(), static_cast<std::size_t>(got));
      if (got == 0 || !slot->failure.empty()) return end(slot, slot->failure);
    }
  }

  void step() {
    epoll_event events[64];
    const int count = ::epoll_wait(epoll_.get(), events, 64, 100);
    for (int i = 0; i < count; ++i) {
      Slot& slot = *static_cast<Slot*>(events[i].data.ptr);
      if (!slot) continue;
      if (!slot->sent && (events[i].events & (EPOLLOUT | EPOLLERR | EPOLLHUP)) != 0)
        send_request(slot);
      if (slot && slot->sent) receive(slot);
    }
    refill();
  }

  /// Outside of the loop over events: an event must not meet a slot that means another request
  /// already. A refused connect ends a request at once, so more than one round may be needed.
  void refill() {
    while (std::exchange(ended_, false))
      for (auto& slot : slots_)
        if (!slot) begin(slot);
  }

  void expire() {
    for (auto& slot : slots_)
      if (slot && Clock::now() - slot->begun > plan_.each)
        end(slot, "no end within " + std::to_string(plan_.each.count()) + " s");
    refill();
  }

  const LoadPlan& plan_;
  sys::UniqueFd epoll_;
  std::vector<Slot> slots_;
  unsigned weights_ = 0;
  unsigned started_ = 0;
  bool ended_ = false;
  std::vector<char> buffer_ = std::vector<char>(256 * 1024);
  LoadResult result_;
};

}  // namespace

std::chrono::nanoseconds LoadResult::percentile(double p) const {
  if (latency.empty()) return {};
  const auto index = static_cast<std::size_t>(p / 100.0 * static_cast<double>(latency.size() - 1));
  return latency[index];
}

LoadResult run_load(const LoadPlan& plan) { return Run(plan).run(); }

}  // namespace tcpmig::lab
