// SPDX-License-Identifier: MIT
#include "crowd.hpp"

#include <poll.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <chrono>
#include <cstring>
#include <stdexcept>

#include "figures.hpp"
#include "lab/interrupt.hpp"
#include "lab/process.hpp"
#include "sys/check.hpp"
#include "sys/netns.hpp"

namespace tcpmig::bench {
namespace {

using Clock = std::chrono::steady_clock;

constexpr int kPatience = 10'000;  ///< ms in which something must happen
constexpr std::size_t kParallel = 64;

int error_of(int fd) {
  int error = 0;
  socklen_t size = sizeof error;
  sys::check("getsockopt SO_ERROR", ::getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &size));
  return error;
}

/// What one process of the crowd has.
class Connections {
 public:
  Connections(sys::Endpoint target, const std::string& request)
      : target_(target),
        request_(request),
        epoll_(sys::check("epoll_create1", ::epoll_create1(EPOLL_CLOEXEC))) {}

  void open_all(std::size_t count) {
    std::size_t done = 0;
    while (open_.size() < std::min(count, kParallel)) begin();
    std::array<epoll_event, 64> events;
    while (done < count) {
      const int got =
          ::epoll_wait(epoll_.get(), events.data(), static_cast<int>(events.size()), kPatience);
      if (got == 0)
        throw std::runtime_error("nothing comes, with " + std::to_string(done) + " open");
      for (int i = 0; i < got; ++i) {
        const epoll_event& event = events[static_cast<std::size_t>(i)];
        if (!serve(event.data.fd, (event.events & EPOLLOUT) != 0)) continue;
        sys::check("epoll_ctl", ::epoll_ctl(epoll_.get(), EPOLL_CTL_DEL, event.data.fd, nullptr));
        ++done;
        if (open_.size() < count) begin();
      }
    }
  }

  [[nodiscard]] double ask(std::size_t index) const {
    const int fd = open_.at(index).get();
    std::array<char, 16384> bytes;
    const auto begun = Clock::now();
    sys::check("send", ::send(fd, request_.data(), request_.size(), MSG_NOSIGNAL));
    pollfd wait{fd, POLLIN, 0};
    if (::poll(&wait, 1, kPatience) != 1 || ::recv(fd, bytes.data(), bytes.size(), 0) <= 0)
      throw std::runtime_error("an open connection has no answer");
    return microseconds(Clock::now() - begun);
  }

 private:
  void begin() {
    const auto [address, length] = target_.to_sockaddr();
    sys::UniqueFd fd(sys::check(
        "socket", ::socket(address.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0)));
    if (::connect(fd.get(), reinterpret_cast<const sockaddr*>(&address), length) != 0 &&
        errno != EINPROGRESS)
      sys::check("connect", -1);
    epoll_event event{};
    event.events = EPOLLIN | EPOLLOUT | EPOLLET;
    event.data.fd = fd.get();
    sys::check("epoll_ctl", ::epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, fd.get(), &event));
    open_.push_back(std::move(fd));
  }

  /// True: this connection is as it shall be.
  [[nodiscard]] bool serve(int fd, bool writable) const {
    if (const int error = error_of(fd); error != 0)
      throw std::system_error(error, std::generic_category(),
                              "connection " + std::to_string(open_.size()));
    std::array<char, 16384> bytes;
    const ssize_t got = ::recv(fd, bytes.data(), bytes.size(), 0);
    if (got > 0) {
      if (std::strncmp(bytes.data(), "HTTP/1.1 200", 12) != 0)
        throw std::runtime_error("answered " + std::string(bytes.data(), 12));
      return true;
    }
    if (got == 0 || errno != EAGAIN)
      throw std::runtime_error("connection " + std::to_string(open_.size()) + " was ended");
    if (!writable) return false;
    if (request_.empty()) return true;
    sys::check("send", ::send(fd, request_.data(), request_.size(), MSG_NOSIGNAL));
    return false;
  }

  sys::Endpoint target_;
  const std::string& request_;
  sys::UniqueFd epoll_;
  std::vector<sys::UniqueFd> open_;
};

/// The next message of a process of the crowd; empty: it has ended. Ctrl-C is noticed.
std::string next_message(int channel) {
  pollfd wait{channel, POLLIN, 0};
  while (::poll(&wait, 1, 200) == 0) lab::throw_if_interrupted();
  std::array<char, 4096> text;
  const ssize_t got = ::recv(channel, text.data(), text.size(), 0);
  return {text.data(), got > 0 ? static_cast<std::size_t>(got) : 0};
}

void say_to(int channel, const std::string& text) {
  sys::check("send", ::send(channel, text.data(), text.size(), MSG_NOSIGNAL));
}

}  // namespace

/// Each message of the other side is the number of a connection to ask again; the answer is the time. Ends when the other side does.
void Crowd::live(sys::UniqueFd channel, const std::string& netns, std::size_t count) const {
  try {
    const sys::EnterNetns inside(netns);
    Connections connections(target_, request_);
    connections.open_all(count);
    say_to(channel.get(), "open");
    for (std::array<char, 64> text{}; ::recv(channel.get(), text.data(), text.size() - 1, 0) > 0;
         text = {})
      say_to(channel.get(), std::to_string(connections.ask(std::stoul(text.data()))));
  } catch (const std::exception& error) {
    ::send(channel.get(), error.what(), std::strlen(error.what()), MSG_NOSIGNAL);
  }
  ::_exit(0);
}

void Crowd::grow(const std::string& netns, std::size_t count) {
  int ends[2];
  sys::check("socketpair", ::socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends));
  sys::UniqueFd mine(ends[0]), its(ends[1]);
  const pid_t parent = ::getpid();
  const pid_t pid = sys::check("fork", ::fork());
  if (pid == 0) {
    mine.reset();
    for (Member& other : members_) other.channel.reset();
    ::prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (::getppid() != parent) ::_exit(0);
    live(std::move(its), netns, count);
  }
  members_.push_back({pid, std::move(mine)});
  its.reset();
  if (const std::string word = next_message(members_.back().channel.get()); word != "open")
    throw std::runtime_error("of " + std::to_string(count) + " connections: " + word);
  size_ += count;
}

std::vector<double> Crowd::ask_again(std::size_t count) {
  std::vector<double> times;
  const int channel = members_.at(0).channel.get();
  for (std::size_t i = 0; i < count; ++i) {
    say_to(channel, std::to_string(i));
    const std::string word = next_message(channel);
    if (word.empty() || word.find_first_not_of("0123456789.e+-") != std::string::npos)
      throw std::runtime_error("of the open connections: " + word);
    times.push_back(std::stod(word));
  }
  return times;
}

Crowd::~Crowd() {
  for (Member& member : members_) {
    member.channel.reset();
    ::kill(member.pid, SIGKILL);
    ::waitpid(member.pid, nullptr, 0);
  }
}

}  // namespace tcpmig::bench
