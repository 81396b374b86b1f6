// SPDX-License-Identifier: MIT
#include "agent/likeness.hpp"

#include <linux/socket.h>
#include <linux/tcp.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/time.h>

#include <array>

#include "conn/settings.hpp"

namespace tcpmig::agent {
namespace {

template <typename Value>
void copy(int from, int to, int level, int name) noexcept {
  Value value{};
  socklen_t length = sizeof value;
  if (::getsockopt(from, level, name, &value, &length) == 0)
    static_cast<void>(::setsockopt(to, level, name, &value, length));
}

/// The kernel doubles what it is told, and tells the double. Forced: the program may have been allowed more than the system's limit.
void copy_buffer(int from, int to, int name, int force) noexcept {
  int size = 0;
  socklen_t length = sizeof size;
  if (::getsockopt(from, SOL_SOCKET, name, &size, &length) < 0) return;
  size /= 2;
  static_cast<void>(::setsockopt(to, SOL_SOCKET, force, &size, sizeof size));
}

}  // namespace

void take_likeness(Snapshot& snapshot, const Accepted& ticket, int ticket_fd) {
  const bool ipv4 = snapshot.peer.address.is_ipv4();
  snapshot.mapped = ipv4 && ticket.ipv6_socket;
  snapshot.settings = conn::dump_settings(ticket_fd, !ipv4);
}

void give_likeness(int ticket_fd, int connection) noexcept {
  copy<timeval>(ticket_fd, connection, SOL_SOCKET, SO_RCVTIMEO);
  copy<timeval>(ticket_fd, connection, SOL_SOCKET, SO_SNDTIMEO);
  copy<int>(ticket_fd, connection, SOL_SOCKET, SO_RCVLOWAT);
  copy<int>(ticket_fd, connection, SOL_SOCKET, SO_OOBINLINE);
  copy<int>(ticket_fd, connection, IPPROTO_TCP, TCP_LINGER2);
  int locked =
      0;  // sizes that nobody has set are the kernel's to tune; before 5.14 nobody can tell
  socklen_t length = sizeof locked;
  if (::getsockopt(ticket_fd, SOL_SOCKET, SO_BUF_LOCK, &locked, &length) < 0) return;
  if ((locked & SOCK_SNDBUF_LOCK) != 0)
    copy_buffer(ticket_fd, connection, SO_SNDBUF, SO_SNDBUFFORCE);
  if ((locked & SOCK_RCVBUF_LOCK) != 0)
    copy_buffer(ticket_fd, connection, SO_RCVBUF, SO_RCVBUFFORCE);
}

}  // namespace tcpmig::agent
