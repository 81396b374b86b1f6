// SPDX-License-Identifier: MIT
#include "generator.hpp"

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <deque>
#include <random>

#include "client_ports.hpp"
#include "figures.hpp"
#include "lab/interrupt.hpp"
#include "sys/check.hpp"
#include "sys/netns.hpp"
#include "sys/unique_fd.hpp"

namespace tcpmig::bench {
namespace {

using Clock = std::chrono::steady_clock;
using Time = Clock::time_point;

constexpr int kBurst = 16;  ///< a loop takes in many more events than it begins connections

struct Connection {
  sys::UniqueFd fd;
  Time due;
  std::uint64_t number = 0;  ///< tells a slot's connection from the one that was there before
  bool sent = false;
  std::string head;  ///< the first bytes of the answer
};

std::vector<Time> draw_arrivals(const LoadPlan& plan, Time begun) {
  std::mt19937_64 random(1);
  std::exponential_distribution<double> gap(plan.rate);
  std::vector<Time> result;
  for (double at = gap(random); at < seconds(plan.length); at += gap(random))
    result.push_back(begun + std::chrono::nanoseconds(static_cast<std::int64_t>(at * 1e9)));
  return result;
}

class Generator {
 public:
  explicit Generator(const LoadPlan& plan)
      : plan_(plan),
        epoll_(sys::check("epoll_create1", ::epoll_create1(EPOLL_CLOEXEC))),
        slots_(plan.in_flight),
        begun_(Clock::now()) {
    for (std::size_t slot = slots_.size(); slot > 0; --slot) free_.push_back(slot - 1);
    for (const sys::Endpoint& target : plan.targets) addresses_.push_back(target.to_sockaddr());
    if (plan.rate > 0) arrivals_ = draw_arrivals(plan, begun_);
  }

  LoadResult run() {
    const Time end = begun_ + plan_.length;
    while (Clock::now() < end || (open() && Clock::now() < end + plan_.patience)) {
      lab::throw_if_interrupted();
      plan_.rate > 0 ? arrive() : refill(end);
      wait();
      give_up();
    }
    result_.late += slots_.size() - free_.size() + (arrivals_.size() - next_);
    result_.begun += arrivals_.size() - next_;
    result_.seconds =
        plan_.rate > 0 ? seconds(plan_.length) : seconds(std::max(last_, end) - begun_);
    return std::move(result_);
  }

 private:
  [[nodiscard]] bool open() const { return free_.size() < slots_.size(); }

  /// A few of those that are due: with more at a time, answers that are there would wait for this program, and count as the server's delay.
  void arrive() {
    const Time now = Clock::now();
    for (int begun = 0; begun < kBurst && next_ < arrivals_.size() && arrivals_[next_] <= now;
         ++begun, ++next_) {
      result_.lag_us = std::max(result_.lag_us, microseconds(now - arrivals_[next_]));
      begin(arrivals_[next_]);
    }
  }

  void refill(Time end) {
    while (!free_.empty() && Clock::now() < end) begin(Clock::now());
  }

  void begin(Time due) {
    ++result_.begun;
    if (free_.empty()) return fail("too many connections are open");
    const auto& [address, length] = addresses_[result_.begun % addresses_.size()];
    sys::UniqueFd fd(sys::check(
        "socket", ::socket(address.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0)));
    const int on = 1;
    ::setsockopt(fd.get(), IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    plan_.ports->bind_next(fd.get());
    if (::connect(fd.get(), reinterpret_cast<const sockaddr*>(&address), length) != 0 &&
        errno != EINPROGRESS)
      return fail(std::string("connect: ") + std::strerror(errno));
    const std::size_t slot = free_.back();
    free_.pop_back();
    epoll_event event{};
    event.events = EPOLLIN | EPOLLOUT | EPOLLET;
    event.data.u64 = slot;
    sys::check("epoll_ctl", ::epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, fd.get(), &event));
    slots_[slot] = {std::move(fd), due, result_.begun, false, {}};
    deadlines_.push_back({slot, result_.begun, due + plan_.patience});
    // Between namespaces the handshake is over by now, unless the SYN was dropped.
    send_request(slot);
  }

  void send_request(std::size_t slot) {
    Connection& connection = slots_[slot];
    const ssize_t sent =
        ::send(connection.fd.get(), plan_.request.data(), plan_.request.size(), MSG_NOSIGNAL);
    if (sent < 0 && errno == EAGAIN) return;
    if (sent != static_cast<ssize_t>(plan_.request.size()))
      return end(slot, std::string("send: ") + std::strerror(errno));
    connection.sent = true;
  }

  /// Until something happens, the next arrival is due, or the oldest has had its time.
  void wait() {
    Time until = Clock::now() + std::chrono::milliseconds(10);
    if (next_ < arrivals_.size()) until = std::min(until, arrivals_[next_]);
    const auto rest =
        std::max(std::chrono::nanoseconds(0), std::chrono::nanoseconds(until - Clock::now()));
    const timespec limit{rest.count() / 1'000'000'000, rest.count() % 1'000'000'000};
    std::array<epoll_event, 256> events;
    const int got = ::epoll_pwait2(epoll_.get(), events.data(), static_cast<int>(events.size()),
                                   &limit, nullptr);
    for (int i = 0; i < got; ++i) serve(events[static_cast<std::size_t>(i)]);
  }

  void serve(const epoll_event& event) {
    const std::size_t slot = event.data.u64;
    Connection& connection = slots_[slot];
    if (!connection.fd) return;
    if (!connection.sent && (event.events & EPOLLOUT) != 0) send_request(slot);
    if (connection.fd && (event.events & (EPOLLIN | EPOLLERR | EPOLLHUP)) != 0) receive(slot);
  }

  void receive(std::size_t slot) {
    Connection& connection = slots_[slot];
    for (;;) {
      const ssize_t got = ::recv(connection.fd.get(), buffer_.data(), buffer_.size(), 0);
      if (got < 0 && errno == EAGAIN) return;
      if (got < 0) return end(slot, std::string("recv: ") + std::strerror(errno));
      if (got == 0)
        return end(slot, connection.head.starts_with("HTTP/1.1 200") ? "" : "no whole answer");
      if (connection.head.size() < 12)
        connection.head.append(buffer_.data(),
                               std::min<std::size_t>(12, static_cast<std::size_t>(got)));
    }
  }

  void end(std::size_t slot, const std::string& failure) {
    last_ = Clock::now();
    if (failure.empty()) {
      ++result_.good;
      result_.latency_us.push_back(microseconds(last_ - slots_[slot].due));
    } else {
      fail(failure);
    }
    drop(slot);
  }

  void drop(std::size_t slot) {
    slots_[slot] = {};
    free_.push_back(slot);
  }

  void fail(const std::string& failure) {
    ++result_.failed;
    if (result_.failure.empty()) result_.failure = failure;
  }

  /// All have the same patience, so the oldest stands first.
  void give_up() {
    const Time now = Clock::now();
    for (; !deadlines_.empty() && deadlines_.front().at <= now; deadlines_.pop_front()) {
      const Deadline& deadline = deadlines_.front();
      Connection& connection = slots_[deadline.slot];
      if (!connection.fd || connection.number != deadline.number) continue;
      ++result_.late;
      const linger reset{1, 0};
      ::setsockopt(connection.fd.get(), SOL_SOCKET, SO_LINGER, &reset, sizeof reset);
      drop(deadline.slot);
    }
  }

  struct Deadline {
    std::size_t slot;
    std::uint64_t number;
    Time at;
  };

  const LoadPlan& plan_;
  sys::UniqueFd epoll_;
  std::vector<std::pair<sockaddr_storage, socklen_t>> addresses_;
  std::vector<Connection> slots_;
  std::vector<std::size_t> free_;
  std::deque<Deadline> deadlines_;
  std::vector<Time> arrivals_;
  std::size_t next_ = 0;
  Time begun_, last_{};
  LoadResult result_;
  std::vector<char> buffer_ = std::vector<char>(std::size_t{64} * 1024);
};

}  // namespace

LoadResult generate(const LoadPlan& plan) {
  const sys::EnterNetns inside(plan.netns);
  return Generator(plan).run();
}

}  // namespace tcpmig::bench
