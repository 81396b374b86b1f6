// SPDX-License-Identifier: MIT
#include "fetch.hpp"

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>

#include <charconv>
#include <stdexcept>
#include <vector>

#include "client_ports.hpp"
#include "sys/check.hpp"
#include "sys/unique_fd.hpp"

namespace tcpmig::bench {
namespace {

using Clock = std::chrono::steady_clock;

constexpr std::size_t kBuffer = 256 * 1024;

sys::UniqueFd open_socket(int family) {
  sys::UniqueFd fd(sys::check("socket", ::socket(family, SOCK_STREAM | SOCK_CLOEXEC, 0)));
  const int on = 1;
  const timeval patience{10, 0};
  ::setsockopt(fd.get(), IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
  ::setsockopt(fd.get(), SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
  ::setsockopt(fd.get(), SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof patience);
  return fd;
}

std::size_t content_length(std::string_view head) {
  for (const char* name : {"Content-Length: ", "content-length: "}) {
    const auto place = head.find(name);
    if (place == std::string_view::npos) continue;
    std::size_t length = 0;
    const char* begin = head.data() + place + 16;
    if (std::from_chars(begin, head.data() + head.size(), length).ec == std::errc()) return length;
  }
  throw std::runtime_error("an answer without a length: " + std::string(head));
}

/// Reads a whole answer; the length of its body.
std::size_t receive(int fd) {
  static thread_local std::vector<char> buffer(kBuffer);
  std::size_t got = 0, wanted = 0, body = 0;
  while (wanted == 0 || got < wanted) {
    char* place = buffer.data() + (wanted == 0 ? got : 0);
    const ssize_t more = ::recv(fd, place, buffer.size() - (wanted == 0 ? got : 0), 0);
    sys::check("recv", static_cast<int>(more));
    if (more == 0)
      throw std::runtime_error("an answer ended after " + std::to_string(got) + " bytes");
    got += static_cast<std::size_t>(more);
    if (wanted != 0) continue;
    const std::string_view head(buffer.data(), got);
    const auto end = head.find("\r\n\r\n");
    if (end == std::string_view::npos) continue;
    if (head.substr(8, 5) != " 200 ")
      throw std::runtime_error("answered " + std::string(head.substr(0, head.find("\r\n"))));
    body = content_length(head.substr(0, end + 2));
    wanted = end + 4 + body;
  }
  return body;
}

}  // namespace

std::string closing_request(const std::string& path) {
  return "GET " + path + " HTTP/1.1\r\nHost: bench\r\nConnection: close\r\n\r\n";
}

Fetched fetch(const sys::Endpoint& from, const std::string& request, ClientPorts& ports) {
  const auto [address, length] = from.to_sockaddr();
  const sys::UniqueFd fd = open_socket(address.ss_family);
  ports.bind_next(fd.get());
  const auto begun = Clock::now();
  if (::connect(fd.get(), reinterpret_cast<const sockaddr*>(&address), length) != 0)
    throw std::system_error(errno, std::generic_category(), "connect to " + from.str());
  if (::send(fd.get(), request.data(), request.size(), MSG_NOSIGNAL) !=
      static_cast<ssize_t>(request.size()))
    sys::check("send", -1);
  Fetched result;
  result.bytes = receive(fd.get());
  result.took = Clock::now() - begun;
  return result;
}

}  // namespace tcpmig::bench
