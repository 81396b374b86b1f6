// SPDX-License-Identifier: MIT
#include "conn/placeholder.hpp"

#include <linux/bpf.h>  // the TCP states
#include <linux/tcp.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include "conn/socket_option.hpp"
#include "sys/netlink.hpp"

namespace tcpmig::conn {

sys::UniqueFd open_placeholder(const Endpoints& ends, bool mapped) {
  sys::UniqueFd fd = open_in_repair(ends.local, mapped);
  restore_local(fd.get(), ends.local, mapped);
  SocketLock lock(fd.get(), -1);
  restore_peer(fd.get(), ends.peer, mapped);
  lock.keep();
  return fd;
}

int step_aside(int fd, const sys::Endpoint& peer) {
  const int before =
      get_option<int>(fd, SOL_SOCKET, SO_BINDTOIFINDEX, "getsockopt SO_BINDTOIFINDEX");
  const auto route = sys::Netlink().route_to(peer.address);
  if (!route || route->oif == 0)
    throw std::system_error(ENETUNREACH, std::generic_category(), "no route to " + peer.str());
  set_option(fd, SOL_SOCKET, SO_BINDTOIFINDEX, route->oif, "setsockopt SO_BINDTOIFINDEX");
  return before;
}

void step_back(int fd, int ifindex) noexcept {
  ::setsockopt(fd, SOL_SOCKET, SO_BINDTOIFINDEX, &ifindex, sizeof(ifindex));
}

void disconnect_silently(int fd) {
  sockaddr nowhere{};
  nowhere.sa_family = AF_UNSPEC;
  sys::check("end the connection without a packet (connect to AF_UNSPEC)",
             ::connect(fd, &nowhere, sizeof(nowhere)));
}

void release(int fd, int reuse) noexcept {
  const int off = TCP_REPAIR_OFF_NO_WP, unused = 0;
  ::setsockopt(fd, IPPROTO_TCP, TCP_REPAIR, &off, sizeof(off));
  ::setsockopt(fd, SOL_SOCKET, SO_DETACH_FILTER, &unused, sizeof(unused));
  ::setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &reuse, sizeof(reuse));
  ::tcp_info info{};
  socklen_t length = sizeof(info);
  if (::getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &length) == 0 &&
      info.tcpi_state == BPF_TCP_CLOSE)
    ::shutdown(fd, SHUT_RDWR);  // says ENOTCONN, and marks both directions as ended (inet_shutdown)
}

}  // namespace tcpmig::conn
