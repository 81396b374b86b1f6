// SPDX-License-Identifier: MIT
#include "acceptor.hpp"

#include <netinet/in.h>
#include <sys/socket.h>

#include <array>

#include "dispatcher/stats.hpp"
#include "processes.hpp"
#include "sys/address.hpp"
#include "sys/check.hpp"
#include "sys/netns.hpp"

namespace tcpmig::bench {
namespace {

sys::UniqueFd listen_at(const std::string& netns, std::uint16_t port, bool spinning) {
  const sys::EnterNetns inside(netns);
  sys::UniqueFd fd(sys::check(
      "socket", ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | (spinning ? SOCK_NONBLOCK : 0), 0)));
  const int on = 1;
  // So often accept() returns to see whether it is time to end.
  const timeval look{0, 200'000};
  ::setsockopt(fd.get(), SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
  ::setsockopt(fd.get(), SOL_SOCKET, SO_RCVTIMEO, &look, sizeof look);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(port);
  sys::check("bind", ::bind(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address));
  sys::check("listen", ::listen(fd.get(), 4096));
  return fd;
}

}  // namespace

Acceptor::Acceptor(const std::string& netns, std::uint16_t port, std::size_t reply, bool spinning,
                   std::vector<unsigned> processors)
    : listener_(listen_at(netns, port, spinning)),
      reply_("HTTP/1.1 200 OK\r\nContent-Length: " + std::to_string(reply) +
             "\r\nConnection: close\r\n\r\n" + std::string(reply, 'r')),
      spinning_(spinning),
      processors_(std::move(processors)),
      thread_([this] { serve(); }) {}

Acceptor::~Acceptor() {
  stop_ = true;
  thread_.join();
}

std::map<std::string, std::uint64_t> Acceptor::take() {
  const std::lock_guard lock(mutex_);
  return std::exchange(accepted_, {});
}

/// Reads the head and as much as it says there follows: who closes with something unread resets the connection.
void Acceptor::answer(int fd) {
  std::array<char, 65536> bytes{};
  std::string head;
  std::size_t wanted = std::string::npos, got = 0;
  while (got < wanted) {
    const ssize_t more = ::recv(fd, bytes.data(), bytes.size(), 0);
    if (more <= 0) return;
    got += static_cast<std::size_t>(more);
    if (wanted != std::string::npos) continue;
    head.append(bytes.data(), static_cast<std::size_t>(more));
    const auto end = head.find("\r\n\r\n");
    if (end == std::string::npos) continue;
    const auto length = head.find("Content-Length: ");
    wanted = end + 4 + (length < end ? std::stoul(head.substr(length + 16)) : 0);
  }
  [[maybe_unused]] const ssize_t sent = ::send(fd, reply_.data(), reply_.size(), MSG_NOSIGNAL);
}

void Acceptor::serve() {
  pin_this_thread(processors_);
  while (!stop_) {
    sockaddr_in peer{};
    socklen_t length = sizeof peer;
    const sys::UniqueFd fd(
        ::accept4(listener_.get(), reinterpret_cast<sockaddr*>(&peer), &length, SOCK_CLOEXEC));
    const std::uint64_t now = dispatcher::monotonic_ns();
    if (!fd) continue;
    const sys::Endpoint client{sys::Address::from_v4(peer.sin_addr), ntohs(peer.sin_port)};
    const timeval patience{5, 0};
    ::setsockopt(fd.get(), SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
    {
      const std::lock_guard lock(mutex_);
      accepted_[client.str()] = now;
    }
    answer(fd.get());
  }
}

}  // namespace tcpmig::bench
