// SPDX-License-Identifier: MIT
#pragma once

namespace tcpmig::conn {

/// The lock of one socket: a filter in front of TCP that drops what arrives, so that nothing is
/// acknowledged (bpf/lock.bpf.c). Without a program (fd -1) a classic filter that copies nothing:
/// it takes 9 us, and the client sends again after 200 ms. Takes the place of a filter that the
/// application may have set. The socket outlives the lock.
class SocketLock {
 public:
  SocketLock(int fd, int program_fd);
  ~SocketLock();
  SocketLock(SocketLock&& other) noexcept;
  SocketLock& operator=(SocketLock&&) = delete;

  /// Takes the lock off. What was dropped meanwhile is not sent again by anybody but the peer.
  void open() noexcept;
  /// The socket is closed with the lock on.
  void keep() noexcept { fd_ = -1; }

 private:
  int fd_;
};

/// Takes off what a SocketLock that was kept has left on a socket that goes on after all.
void open_lock(int fd) noexcept;

}  // namespace tcpmig::conn
