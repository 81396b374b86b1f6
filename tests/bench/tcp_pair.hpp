// SPDX-License-Identifier: MIT
#pragma once
#include <netinet/in.h>
#include <sys/socket.h>

#include "sys/check.hpp"
#include "sys/unique_fd.hpp"

namespace tcpmig::bench {

/// A TCP socket. `room`: bytes of each of its buffers; 0: the system's default.
inline sys::UniqueFd tcp_socket(int room = 0) {
  sys::UniqueFd fd(sys::check("socket", ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)));
  for (const int option : {SO_RCVBUFFORCE, SO_SNDBUFFORCE})
    if (room > 0) ::setsockopt(fd.get(), SOL_SOCKET, option, &room, sizeof room);
  return fd;
}

/// Both ends of a connection on the loopback device of this thread's namespace.
struct TcpPair {
  explicit TcpPair(int room = 0) {
    const sys::UniqueFd listener = tcp_socket(room);
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t length = sizeof address;
    auto* raw = reinterpret_cast<sockaddr*>(&address);
    sys::check("bind", ::bind(listener.get(), raw, length));
    sys::check("listen", ::listen(listener.get(), 1));
    sys::check("getsockname", ::getsockname(listener.get(), raw, &length));
    client = tcp_socket(room);
    sys::check("connect", ::connect(client.get(), raw, length));
    server.reset(sys::check("accept", ::accept4(listener.get(), nullptr, nullptr, SOCK_CLOEXEC)));
  }
  sys::UniqueFd client, server;
};

}  // namespace tcpmig::bench
