// SPDX-License-Identifier: MIT
#include "agent/tickets.hpp"

#include <linux/sockios.h>
#include <netinet/in.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include <optional>
#include <string_view>

#include "conn/socket_option.hpp"
#include "sys/check.hpp"

namespace tcpmig::agent {
namespace {

/// An empty line, which HTTP ignores before a request (RFC 9112, 2.2): for a program that reads its tickets itself.
constexpr std::string_view kLine = "\r\n";

sys::Endpoint endpoint_of(int fd, int (*ask)(int, sockaddr*, socklen_t*)) {
  sockaddr_storage storage{};
  socklen_t length = sizeof storage;
  sys::check("getsockname", ask(fd, reinterpret_cast<sockaddr*>(&storage), &length));
  return sys::Endpoint::from_sockaddr(storage);
}

/// Nothing that waits: 0, or -errno.
int begin_connect(int fd, const sys::Endpoint& to) {
  const auto [address, length] = to.to_sockaddr();
  if (::connect(fd, reinterpret_cast<const sockaddr*>(&address), length) == 0) return 0;
  return errno == EINPROGRESS ? 0 : -errno;
}

}  // namespace

bool Ticket::advance() {
  if (knocked) return true;
  const ssize_t sent = ::send(fd.get(), kLine.data(), kLine.size(), MSG_NOSIGNAL | MSG_DONTWAIT);
  if (sent < 0 && errno == EAGAIN) return false;
  sys::check("knock at " + to.str(), sent);
  return knocked = true;
}

Ticket issue_ticket(const config::Config& config, const config::Node& self,
                    const sys::Endpoint& listener) {
  const bool ipv4 = listener.address.is_ipv4();
  const sys::Endpoint own{config::own_vpa(config, self.id, ipv4), 0};
  Ticket ticket;
  ticket.to = listener;
  ticket.fd.reset(sys::check(
      "socket", ::socket(own.address.family(), SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0)));
  const int fd = ticket.fd.get();
  const linger reset{1, 0};
  conn::set_option(fd, SOL_SOCKET, SO_LINGER, reset, "setsockopt SO_LINGER");
  // as many as there are ports for each listener, not for all together
  conn::set_option(fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, int{1}, "IP_BIND_ADDRESS_NO_PORT");
  if (ipv4)
    conn::set_option(fd, IPPROTO_IP, IP_FREEBIND, int{1}, "setsockopt IP_FREEBIND");
  else
    conn::set_option(fd, IPPROTO_IPV6, IPV6_FREEBIND, int{1}, "setsockopt IPV6_FREEBIND");
  const auto [address, length] = own.to_sockaddr();
  sys::check("bind " + own.address.str(),
             ::bind(fd, reinterpret_cast<const sockaddr*>(&address), length));
  sys::check_errno("connect " + listener.str(), begin_connect(fd, listener));
  ticket.from = endpoint_of(fd, ::getsockname);
  ticket
      .advance();  // on the loopback device the handshake is over by now, unless the backlog is full
  return ticket;
}

std::optional<Accepted> look_at(int fd) {
  int protocol = 0;
  socklen_t length = sizeof protocol;
  if (::getsockopt(fd, SOL_SOCKET, SO_PROTOCOL, &protocol, &length) < 0 || protocol != IPPROTO_TCP)
    return std::nullopt;
  try {
    return Accepted{
        endpoint_of(fd, ::getpeername), endpoint_of(fd, ::getsockname),
        conn::get_option<int>(fd, SOL_SOCKET, SO_DOMAIN, "getsockopt SO_DOMAIN") == AF_INET6};
  } catch (const std::system_error&) {  // ENOTCONN
    return std::nullopt;
  }
}

bool in_same_namespace(int a, int b) {
  const sys::UniqueFd of_a(::ioctl(a, SIOCGSKNS));
  const sys::UniqueFd of_b(::ioctl(b, SIOCGSKNS));
  struct stat one{};
  struct stat other{};
  return of_a && of_b && ::fstat(of_a.get(), &one) == 0 && ::fstat(of_b.get(), &other) == 0 &&
         one.st_ino == other.st_ino && one.st_dev == other.st_dev;
}

}  // namespace tcpmig::agent
