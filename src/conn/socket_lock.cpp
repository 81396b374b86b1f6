// SPDX-License-Identifier: MIT
#include "conn/socket_lock.hpp"

#include <linux/filter.h>
#include <sys/socket.h>

#include <utility>

#include "conn/repair_helper.hpp"
#include "conn/socket_option.hpp"

namespace tcpmig::conn {

namespace {

int attach(int fd, int program_fd) {
  if (program_fd >= 0)
    return ::setsockopt(fd, SOL_SOCKET, SO_ATTACH_BPF, &program_fd, sizeof program_fd);
  sock_filter drop = BPF_STMT(BPF_RET | BPF_K, 0);
  const sock_fprog program{.len = 1, .filter = &drop};
  return ::setsockopt(fd, SOL_SOCKET, SO_ATTACH_FILTER, &program, sizeof program);
}

}  // namespace

SocketLock::SocketLock(int fd, int program_fd) : fd_(fd) {
  if (attach(fd, program_fd) == 0) return;
  const char* what = program_fd >= 0 ? "setsockopt SO_ATTACH_BPF (MPTCP takes none)"
                                     : "setsockopt SO_ATTACH_FILTER";
  if (errno != EPERM) sys::check(what, -1);
  ask_helper({.operation = RepairOperation::kLock}, fd, what);
}

SocketLock::SocketLock(SocketLock&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}

SocketLock::~SocketLock() { open(); }

void SocketLock::open() noexcept {
  if (fd_ >= 0) open_lock(std::exchange(fd_, -1));
}

void open_lock(int fd) noexcept {
  const int unused = 0;
  ::setsockopt(fd, SOL_SOCKET, SO_DETACH_FILTER, &unused, sizeof(unused));
}

}  // namespace tcpmig::conn
