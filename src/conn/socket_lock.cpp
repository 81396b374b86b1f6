// SPDX-License-Identifier: MIT
#include "conn/socket_lock.hpp"

#include <linux/filter.h>
#include <sys/socket.h>

#include <utility>

#include "conn/socket_option.hpp"

namespace tcpmig::conn {

SocketLock::SocketLock(int fd, int program_fd) : fd_(fd) {
  if (program_fd >= 0) {
    set_option(fd, SOL_SOCKET, SO_ATTACH_BPF, program_fd,
               "setsockopt SO_ATTACH_BPF (MPTCP takes none)");
    return;
  }
  sock_filter drop = BPF_STMT(BPF_RET | BPF_K, 0);
  set_option(fd, SOL_SOCKET, SO_ATTACH_FILTER, sock_fprog{.len = 1, .filter = &drop},
             "setsockopt SO_ATTACH_FILTER");
}

SocketLock::SocketLock(SocketLock&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}

SocketLock::~SocketLock() { open(); }

void SocketLock::open() noexcept {
  if (fd_ < 0) return;
  const int unused = 0;
  ::setsockopt(std::exchange(fd_, -1), SOL_SOCKET, SO_DETACH_FILTER, &unused, sizeof(unused));
}

}  // namespace tcpmig::conn
