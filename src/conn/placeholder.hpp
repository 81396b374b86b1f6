// SPDX-License-Identifier: MIT
#pragma once
#include "conn/endpoints.hpp"
#include "conn/socket_lock.hpp"
#include "sys/unique_fd.hpp"

namespace tcpmig::conn {

/// A socket that holds the place of a connection that is nowhere at the moment: it has the four-tuple and a filter that drops everything, so that the
/// kernel does not answer the peer's packets by RST. In repair: nothing leaves, neither now nor when it is closed. In this thread's network namespace.
sys::UniqueFd open_placeholder(const Endpoints& ends, bool mapped);

/// Binds a socket to the interface by which packets of its peer come, as far as the way there tells, so that another one may have the same
/// four-tuple: the kernel refuses two that are bound alike (net/ipv4/inet_hashtables.c, __inet_check_established), and of two that match a
/// packet it finds the younger one. So connections change places without a packet in between that finds none. Gives the former binding
/// (SO_BINDTOIFINDEX; 0: none), for step_back(). In the network namespace of the socket.
int step_aside(int fd, const sys::Endpoint& peer);
void step_back(int fd, int ifindex) noexcept;

/// The end of a connection that other processes have open, without a packet: what they see is a connection that broke. In repair, its send
/// queue selected. connect() to no address ends it (net/ipv4/tcp.c, tcp_disconnect: in repair no RST; pending error ECONNABORTED, everybody who
/// waits wakes up); then repair is left, for in it recv() says EPERM. The first call says ECONNABORTED, later ones read the end of the
/// stream, or write EPIPE. Throws, with the connection as it was, where the kernel refuses the first step.
void disconnect_silently(int fd);
/// What disconnect_silently() does afterwards; also what gives a frozen socket back whose freezer was killed: repair and lock off. `reuse`: SO_REUSEADDR.
void release(int fd, int reuse) noexcept;

}  // namespace tcpmig::conn
