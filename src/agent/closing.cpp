// SPDX-License-Identifier: MIT
#include "agent/closing.hpp"

#include <poll.h>
#include <sys/socket.h>

#include <utility>

namespace tcpmig::agent {

bool has_hung_up(int channel) noexcept {
  pollfd state{channel, 0, 0};
  return ::poll(&state, 1, 0) > 0 && (state.revents & (POLLHUP | POLLERR)) != 0;
}

/// After shutdown() nothing more can come in. (A message of no bytes hides what comes behind it: who may be a stranger is closed aside always.)
void close_channel(sys::Aside& aside, sys::UniqueFd channel) noexcept {
  if (!channel) return;
  char byte = 0;
  iovec part{&byte, 1};
  msghdr message{};
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  ::shutdown(channel.get(), SHUT_RDWR);
  const ssize_t waits = ::recvmsg(channel.get(), &message, MSG_PEEK | MSG_DONTWAIT);
  if (waits > 0 || (message.msg_flags & MSG_CTRUNC) != 0) aside.close(std::move(channel));
}

void close_connection(sys::Aside& aside, sys::UniqueFd connection) noexcept {
  if (!connection) return;
  linger end{};
  socklen_t length = sizeof end;
  const bool known = ::getsockopt(connection.get(), SOL_SOCKET, SO_LINGER, &end, &length) == 0;
  if (!known || (end.l_onoff != 0 && end.l_linger != 0)) aside.close(std::move(connection));
}

}  // namespace tcpmig::agent
