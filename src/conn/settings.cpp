// SPDX-License-Identifier: MIT
#include "conn/settings.hpp"

#include <fcntl.h>
#include <linux/socket.h>
#include <linux/tcp.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <iterator>
#include <limits>

#include "conn/dump.hpp"
#include "conn/repair_helper.hpp"
#include "conn/socket_option.hpp"

namespace tcpmig::conn {
namespace {

constexpr int kEcnBits = 3;  // RFC 3168, 5: the low two bits of the traffic class
constexpr std::uint32_t kMostSeconds = 32'767, kMostProbes = 127;  // include/net/tcp.h

std::uint32_t number(int fd, int level, int name, const char* what) {
  return static_cast<std::uint32_t>(get_option<int>(fd, level, name, what));
}

/// What is not set reads as the system's own, which may be more than an application may set: that is not known, then.
std::uint32_t settable(std::uint32_t value, std::uint32_t most) {
  return value <= most ? value : 0;
}

bool is_nonblocking(int fd) {
  return (sys::check("fcntl F_GETFL", ::fcntl(fd, F_GETFL)) & O_NONBLOCK) != 0;
}

/// The kernel's HZ, which it tells nobody: what a second is on a socket of our own. 0: the dump program does not answer here.
std::uint32_t jiffies_per_second() {
  static const std::uint32_t known = [] {
    const UniqueFd probe(
        sys::check("socket", ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, IPPROTO_TCP)));
    set_option(probe.get(), IPPROTO_TCP, TCP_KEEPINTVL, 1, "setsockopt TCP_KEEPINTVL");
    const auto dump = dump_by_program(probe.get(), Scope::kWhole);
    return dump ? dump->settings.value().keep_interval : 0;
  }();
  return known;
}

int dump_hops(int fd, bool ipv6) {
  return ipv6 ? get_option<int>(fd, IPPROTO_IPV6, IPV6_UNICAST_HOPS, "getsockopt IPV6_UNICAST_HOPS")
              : get_option<int>(fd, IPPROTO_IP, IP_TTL, "getsockopt IP_TTL");
}

void dump_ip(int fd, bool ipv6, SocketSettings& settings) {
  const int tos = ipv6 ? get_option<int>(fd, IPPROTO_IPV6, IPV6_TCLASS, "getsockopt IPV6_TCLASS")
                       : get_option<int>(fd, IPPROTO_IP, IP_TOS, "getsockopt IP_TOS");
  settings.tos = static_cast<std::uint8_t>(tos & ~kEcnBits);
  settings.hops = static_cast<std::uint8_t>(dump_hops(fd, ipv6));
}

void dump_buffers(int fd, SocketSettings& settings) {
  settings.send_buffer = number(fd, SOL_SOCKET, SO_SNDBUF, "getsockopt SO_SNDBUF");
  settings.receive_buffer = number(fd, SOL_SOCKET, SO_RCVBUF, "getsockopt SO_RCVBUF");
  int fixed = 0;
  socklen_t length = sizeof(fixed);
  ::getsockopt(fd, SOL_SOCKET, SO_BUF_LOCK, &fixed, &length);  // absent before Linux 5.14
  settings.send_buffer_fixed = (fixed & SOCK_SNDBUF_LOCK) != 0;
  settings.receive_buffer_fixed = (fixed & SOCK_RCVBUF_LOCK) != 0;
}

/// The kernel doubles what it is given (net/core/sock.c, __sock_set_rcvbuf). `plain`: SO_SNDBUF, ..: where neither this process nor a helper may go
/// beyond net.core.wmem_max, as much as that lets (a size is no part of the conversation).
void restore_buffer(int fd, int plain, std::uint32_t size, const char* what) {
  constexpr std::uint32_t kMost = std::numeric_limits<int>::max();
  if (size == 0) return;
  const bool sends = plain == SO_SNDBUF;
  const int half = static_cast<int>(std::min(size, kMost) / 2);
  try {
    set_privileged(fd, sends ? SO_SNDBUFFORCE : SO_RCVBUFFORCE, half,
                   sends ? RepairOperation::kSendBuffer : RepairOperation::kReceiveBuffer, what);
  } catch (const std::system_error& error) {
    if (error.code().value() != EPERM) throw;
    set_option(fd, SOL_SOCKET, plain, half, what);
  }
}

/// Of a number that 0 leaves as it is.
void restore_number(int fd, int name, std::uint32_t value, const char* what) {
  if (value != 0) set_option(fd, IPPROTO_TCP, name, value, what);
}

void restore_ip(int fd, bool ipv6, const SocketSettings& settings) {
  const int tos = settings.tos, hops = settings.hops;
  if (ipv6) {
    set_option(fd, IPPROTO_IPV6, IPV6_TCLASS, tos, "setsockopt IPV6_TCLASS");
    if (hops != 0)
      set_option(fd, IPPROTO_IPV6, IPV6_UNICAST_HOPS, hops, "setsockopt IPV6_UNICAST_HOPS");
    return;
  }
  set_option(fd, IPPROTO_IP, IP_TOS, tos, "setsockopt IP_TOS");
  if (hops != 0) set_option(fd, IPPROTO_IP, IP_TTL, hops, "setsockopt IP_TTL");
}

}  // namespace

std::string dump_congestion(int fd) {
  std::array<char, 16> name{};
  socklen_t length = name.size();
  if (::getsockopt(fd, IPPROTO_TCP, TCP_CONGESTION, name.data(), &length) < 0)
    sys::check("getsockopt TCP_CONGESTION", -1);
  name.back() = '\0';
  return name.data();
}

void restore_congestion(int fd, const std::string& name) {
  if (name.empty()) return;
  const auto length = static_cast<socklen_t>(name.size());
  // one that is not here, or that only CAP_NET_ADMIN may choose (net.ipv4.tcp_allowed_congestion_control)
  if (::setsockopt(fd, IPPROTO_TCP, TCP_CONGESTION, name.data(), length) < 0 && errno != ENOENT &&
      errno != EPERM)
    sys::check("setsockopt TCP_CONGESTION " + name, -1);
}

SocketSettings dump_settings(int fd, bool ipv6) {
  SocketSettings settings;
  settings.nonblocking = is_nonblocking(fd);
  settings.nodelay = number(fd, IPPROTO_TCP, TCP_NODELAY, "getsockopt TCP_NODELAY") != 0;
  settings.cork = number(fd, IPPROTO_TCP, TCP_CORK, "getsockopt TCP_CORK") != 0;
  settings.keepalive = number(fd, SOL_SOCKET, SO_KEEPALIVE, "getsockopt SO_KEEPALIVE") != 0;
  const auto end = get_option<linger>(fd, SOL_SOCKET, SO_LINGER, "getsockopt SO_LINGER");
  if (end.l_onoff != 0) settings.linger = static_cast<std::uint32_t>(end.l_linger);
  settings.keep_idle =
      settable(number(fd, IPPROTO_TCP, TCP_KEEPIDLE, "getsockopt TCP_KEEPIDLE"), kMostSeconds);
  settings.keep_interval =
      settable(number(fd, IPPROTO_TCP, TCP_KEEPINTVL, "getsockopt TCP_KEEPINTVL"), kMostSeconds);
  settings.keep_count =
      settable(number(fd, IPPROTO_TCP, TCP_KEEPCNT, "getsockopt TCP_KEEPCNT"), kMostProbes);
  settings.user_timeout = number(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, "getsockopt TCP_USER_TIMEOUT");
  settings.notsent_lowat =
      number(fd, IPPROTO_TCP, TCP_NOTSENT_LOWAT, "getsockopt TCP_NOTSENT_LOWAT");
  settings.priority = number(fd, SOL_SOCKET, SO_PRIORITY, "getsockopt SO_PRIORITY");
  settings.mark = number(fd, SOL_SOCKET, SO_MARK, "getsockopt SO_MARK");
  settings.congestion = dump_congestion(fd);
  dump_ip(fd, ipv6, settings);
  dump_buffers(fd, settings);
  return settings;
}

SocketSettings dump_settings(int fd, bool ipv6, const abi::tcp_settings& known) {
  const std::uint32_t second = jiffies_per_second();
  if (second == 0) return dump_settings(fd, ipv6);
  const auto has = [&](unsigned flag) { return (known.flags & flag) != 0; };
  SocketSettings settings;
  settings.nonblocking = is_nonblocking(fd);
  settings.nodelay = has(abi::DUMP_NODELAY);
  settings.cork = has(abi::DUMP_CORK);
  settings.keepalive = has(abi::DUMP_KEEPALIVE);
  if (has(abi::DUMP_LINGER)) settings.linger = static_cast<std::uint32_t>(known.linger / second);
  settings.keep_idle = settable(known.keep_idle / second, kMostSeconds);
  settings.keep_interval = settable(known.keep_interval / second, kMostSeconds);
  settings.keep_count = settable(known.keep_count, kMostProbes);
  settings.user_timeout = known.user_timeout;
  settings.notsent_lowat = known.notsent_lowat;
  settings.priority = known.priority;
  settings.mark = known.mark;
  const auto* end = std::find(std::begin(known.congestion), std::end(known.congestion), '\0');
  settings.congestion.assign(std::begin(known.congestion), end);
  settings.tos = static_cast<std::uint8_t>(known.tos & ~kEcnBits);
  settings.hops = static_cast<std::uint8_t>(known.hops >= 0 ? known.hops : dump_hops(fd, ipv6));
  settings.send_buffer = known.send_buffer;
  settings.receive_buffer = known.receive_buffer;
  settings.send_buffer_fixed = has(abi::DUMP_SEND_BUFFER_FIXED);
  settings.receive_buffer_fixed = has(abi::DUMP_RECEIVE_BUFFER_FIXED);
  return settings;
}

void restore_buffers(int fd, const SocketSettings& settings) {
  restore_buffer(fd, SO_SNDBUF, settings.send_buffer, "setsockopt SO_SNDBUFFORCE");
  restore_buffer(fd, SO_RCVBUF, settings.receive_buffer, "setsockopt SO_RCVBUFFORCE");
  const int fixed = (settings.send_buffer_fixed ? SOCK_SNDBUF_LOCK : 0) |
                    (settings.receive_buffer_fixed ? SOCK_RCVBUF_LOCK : 0);
  ::setsockopt(fd, SOL_SOCKET, SO_BUF_LOCK, &fixed, sizeof(fixed));  // absent before Linux 5.14
}

void restore_settings(int fd, bool ipv6, const SocketSettings& settings) {
  restore_ip(fd, ipv6, settings);  // IP_TOS sets the priority, too: first
  set_privileged(fd, SO_PRIORITY, static_cast<int>(settings.priority), RepairOperation::kPriority,
                 "setsockopt SO_PRIORITY");
  set_privileged(fd, SO_MARK, static_cast<int>(settings.mark), RepairOperation::kMark,
                 "setsockopt SO_MARK");
  restore_congestion(fd, settings.congestion);
  restore_number(fd, TCP_KEEPIDLE, settings.keep_idle, "setsockopt TCP_KEEPIDLE");
  restore_number(fd, TCP_KEEPINTVL, settings.keep_interval, "setsockopt TCP_KEEPINTVL");
  restore_number(fd, TCP_KEEPCNT, settings.keep_count, "setsockopt TCP_KEEPCNT");
  restore_number(fd, TCP_USER_TIMEOUT, settings.user_timeout, "setsockopt TCP_USER_TIMEOUT");
  restore_number(fd, TCP_NOTSENT_LOWAT, settings.notsent_lowat, "setsockopt TCP_NOTSENT_LOWAT");
  set_option(fd, SOL_SOCKET, SO_KEEPALIVE, int{settings.keepalive}, "setsockopt SO_KEEPALIVE");
  set_option(fd, IPPROTO_TCP, TCP_NODELAY, int{settings.nodelay}, "setsockopt TCP_NODELAY");
  set_option(fd, IPPROTO_TCP, TCP_CORK, int{settings.cork}, "setsockopt TCP_CORK");
  const linger end{settings.linger.has_value(), static_cast<int>(settings.linger.value_or(0))};
  set_option(fd, SOL_SOCKET, SO_LINGER, end, "setsockopt SO_LINGER");
  const int flags = sys::check("fcntl F_GETFL", ::fcntl(fd, F_GETFL));
  if (settings.nonblocking) sys::check("fcntl F_SETFL", ::fcntl(fd, F_SETFL, flags | O_NONBLOCK));
}

}  // namespace tcpmig::conn
