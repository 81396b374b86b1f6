// SPDX-License-Identifier: MIT
#include "conn/endpoints.hpp"

#include <linux/in6.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include "conn/repair_mode.hpp"
#include "conn/socket_option.hpp"

namespace tcpmig::conn {
namespace {

using NameCall = int (*)(int, sockaddr*, socklen_t*);

sys::Endpoint name_of(int fd, NameCall call, const char* what) {
  sockaddr_storage storage{};
  socklen_t length = sizeof(storage);
  if (call(fd, reinterpret_cast<sockaddr*>(&storage), &length) < 0) sys::check(what, -1);
  return sys::Endpoint::from_sockaddr(storage);
}

}  // namespace

Endpoints dump_endpoints(int fd) {
  return {name_of(fd, ::getsockname, "getsockname"), name_of(fd, ::getpeername, "getpeername")};
}

sys::UniqueFd open_in_repair(const sys::Endpoint& local, bool mapped) {
  const bool ipv4 = local.address.is_ipv4() && !mapped;
  sys::UniqueFd fd(
      sys::check("socket", ::socket(ipv4 ? AF_INET : AF_INET6, SOCK_STREAM | SOCK_CLOEXEC, 0)));
  const int on = 1, off = 0;
  set_option(fd.get(), SOL_SOCKET, SO_REUSEADDR, on, "setsockopt SO_REUSEADDR");
  if (mapped) set_option(fd.get(), IPPROTO_IPV6, IPV6_V6ONLY, off, "setsockopt IPV6_V6ONLY");
  if (ipv4)
    set_option(fd.get(), IPPROTO_IP, IP_FREEBIND, on, "setsockopt IP_FREEBIND");
  else
    set_option(fd.get(), IPPROTO_IPV6, IPV6_FREEBIND, on, "setsockopt IPV6_FREEBIND");
  enter_repair(fd.get());
  return fd;
}

void restore_local(int fd, const sys::Endpoint& local, bool mapped) {
  const auto [address, length] = local.to_sockaddr(mapped);
  if (::bind(fd, reinterpret_cast<const sockaddr*>(&address), length) < 0)
    sys::check("bind " + local.str(), -1);
}

void restore_peer(int fd, const sys::Endpoint& peer, bool mapped) {
  const auto [address, length] = peer.to_sockaddr(mapped);
  if (::connect(fd, reinterpret_cast<const sockaddr*>(&address), length) < 0)
    sys::check("connect to " + peer.str() + " in repair", -1);
}

}  // namespace tcpmig::conn
