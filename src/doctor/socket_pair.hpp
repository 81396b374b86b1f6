// SPDX-License-Identifier: MIT
#pragma once
#include <cstdint>
#include <string_view>

#include "sys/unique_fd.hpp"

namespace tcpmig::doctor {

/// The two ends of one TCP connection over 127.0.0.1, in this thread's network namespace. What one end sends the other has when send() returns: the
/// loopback device delivers in the sender's context.
struct SocketPair {
  SocketPair();
  sys::UniqueFd client, server;
};

void send_text(int fd, std::string_view text);
/// Bytes that wait to be read (outside of repair).
std::size_t bytes_waiting(int fd);
/// As TCP_INFO has it.
std::uint8_t state_of(int fd);
/// It sent "hello" and got "hello" back, at the other end of `peer`.
bool talk(int fd, int peer);

}  // namespace tcpmig::doctor
