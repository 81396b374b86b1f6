// SPDX-License-Identifier: MIT
#include "helper/session.hpp"

#include <sys/socket.h>
#include <sys/time.h>

#include <array>
#include <cerrno>
#include <cstring>

#include "sys/unique_fd.hpp"

namespace tcpmig::helper {
namespace {

/// 0, or an errno. What does not fit, the kernel has closed already (MSG_CTRUNC).
int receive(int client, conn::RepairRequest& request, sys::UniqueFd& fd) {
  alignas(cmsghdr) std::array<char, CMSG_SPACE(sizeof(int))> control{};
  iovec part{&request, sizeof request};
  msghdr message{};
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  message.msg_control = control.data();
  message.msg_controllen = CMSG_LEN(sizeof(int));  // CMSG_SPACE has room for a second one
  const ssize_t got = ::recvmsg(client, &message, MSG_CMSG_CLOEXEC);
  if (got < 0) return errno == EAGAIN ? ETIMEDOUT : errno;
  for (cmsghdr* item = CMSG_FIRSTHDR(&message); item != nullptr;
       item = CMSG_NXTHDR(&message, item)) {
    if (item->cmsg_level != SOL_SOCKET || item->cmsg_type != SCM_RIGHTS) continue;
    int raw = -1;
    std::memcpy(&raw, CMSG_DATA(item), sizeof raw);
    fd.reset(raw);
  }
  const bool whole = got == sizeof request && (message.msg_flags & (MSG_TRUNC | MSG_CTRUNC)) == 0;
  return whole && request.magic == conn::RepairRequest::kMagic && fd ? 0 : EBADMSG;
}

}  // namespace

void answer(int client, int error) noexcept {
  const std::int32_t number = error;
  ::send(client, &number, sizeof number, MSG_NOSIGNAL | MSG_DONTWAIT);
}

int serve(int client, const Operations& operations) noexcept {
  const timeval limit{.tv_sec = 1, .tv_usec = 0};
  ::setsockopt(client, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
  conn::RepairRequest request;
  sys::UniqueFd fd;
  int error = receive(client, request, fd);
  if (error == 0) error = operations.perform(request, fd.get());
  fd.reset();  // before the answer: who closes the connection then, ends it
  answer(client, error);
  return error;
}

}  // namespace tcpmig::helper
