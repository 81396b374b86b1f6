// SPDX-License-Identifier: MIT
#pragma once
#include <poll.h>
#include <sys/socket.h>

#include <string>

#include "catch.hpp"
#include "sys/address.hpp"
#include "sys/check.hpp"
#include "sys/netns.hpp"

namespace tcpmig::e2e {

/// A server of the test's own, on a node: what it is sent byte by byte, and what it answers.
class Listener {
 public:
  Listener(const std::string& netns, std::uint16_t port) {
    const sys::EnterNetns inside(netns);
    fd_.reset(sys::check("socket", ::socket(AF_INET6, SOCK_STREAM | SOCK_CLOEXEC, 0)));
    const sys::Endpoint any{sys::Address::parse("::").value(), port};
    const auto [address, length] = any.to_sockaddr();
    sys::check("bind", ::bind(fd_.get(), reinterpret_cast<const sockaddr*>(&address), length));
    sys::check("listen", ::listen(fd_.get(), 16));
  }
  [[nodiscard]] sys::UniqueFd accept() const {
    pollfd waiting{fd_.get(), POLLIN, 0};
    REQUIRE(::poll(&waiting, 1, 5000) == 1);
    sys::UniqueFd fd(::accept4(fd_.get(), nullptr, nullptr, SOCK_CLOEXEC));
    const timeval limit{5, 0};
    ::setsockopt(fd.get(), SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
    return fd;
  }

 private:
  sys::UniqueFd fd_;
};

/// Reads until the text ends with `end`; what came, at the latest after 5 s of silence.
inline std::string read_until(const sys::UniqueFd& fd, const std::string& end) {
  std::string text;
  char byte = 0;
  while (!text.ends_with(end) && ::recv(fd.get(), &byte, 1, 0) == 1) text += byte;
  return text;
}

inline void write_all(const sys::UniqueFd& fd, const std::string& text) {
  REQUIRE(::send(fd.get(), text.data(), text.size(), MSG_NOSIGNAL) ==
          static_cast<ssize_t>(text.size()));
}

}  // namespace tcpmig::e2e
