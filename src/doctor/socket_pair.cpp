// SPDX-License-Identifier: MIT
#include "doctor/socket_pair.hpp"

#include <linux/sockios.h>
#include <linux/tcp.h>
#include <netinet/in.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#include <array>

#include "conn/endpoints.hpp"
#include "conn/socket_option.hpp"
#include "sys/check.hpp"

namespace tcpmig::doctor {
namespace {

sys::UniqueFd open_socket() {
  sys::UniqueFd fd(sys::check("socket", ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)));
  const timeval limit{.tv_sec = 3, .tv_usec = 0};
  conn::set_option(fd.get(), SOL_SOCKET, SO_RCVTIMEO, limit, "setsockopt SO_RCVTIMEO");
  return fd;
}

bool arrives(int from, int to) {
  constexpr std::string_view kText = "hello";
  send_text(from, kText);
  std::array<char, 16> got{};
  const auto count = ::recv(to, got.data(), got.size(), 0);
  return count > 0 && std::string_view(got.data(), static_cast<std::size_t>(count)) == kText;
}

}  // namespace

SocketPair::SocketPair() : client(open_socket()) {
  const sys::UniqueFd listener = open_socket();
  const sys::Endpoint any{*sys::Address::parse("127.0.0.1"), 0};
  const auto [address, length] = any.to_sockaddr();
  sys::check("bind", ::bind(listener.get(), reinterpret_cast<const sockaddr*>(&address), length));
  sys::check("listen", ::listen(listener.get(), 1));
  sockaddr_storage there{};
  socklen_t size = sizeof(there);
  sys::check("getsockname",
             ::getsockname(listener.get(), reinterpret_cast<sockaddr*>(&there), &size));
  sys::check("connect", ::connect(client.get(), reinterpret_cast<const sockaddr*>(&there), size));
  server.reset(sys::check("accept", ::accept4(listener.get(), nullptr, nullptr, SOCK_CLOEXEC)));
  const timeval limit{.tv_sec = 3, .tv_usec = 0};
  conn::set_option(server.get(), SOL_SOCKET, SO_RCVTIMEO, limit, "setsockopt SO_RCVTIMEO");
}

void send_text(int fd, std::string_view text) {
  sys::check("send", ::send(fd, text.data(), text.size(), MSG_NOSIGNAL));
}

std::size_t bytes_waiting(int fd) {
  int count = 0;
  sys::check("ioctl SIOCINQ", ::ioctl(fd, SIOCINQ, &count));
  return static_cast<std::size_t>(count);
}

std::uint8_t state_of(int fd) {
  return conn::get_option<::tcp_info>(fd, IPPROTO_TCP, TCP_INFO, "getsockopt TCP_INFO").tcpi_state;
}

bool talk(int fd, int peer) { return arrives(fd, peer) && arrives(peer, fd); }

}  // namespace tcpmig::doctor
