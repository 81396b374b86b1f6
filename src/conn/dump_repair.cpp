// SPDX-License-Identifier: MIT
// The plain recipe of a dump: what libsoccr (CRIU) reads, in its order.
#include <arpa/inet.h>
#include <linux/bpf.h>
#include <linux/sock_diag.h>  // SO_MEMINFO
#include <linux/tcp.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <time.h>

#include <array>
#include <cerrno>
#include <utility>

#include "conn/dump.hpp"
#include "conn/endpoints.hpp"
#include "conn/queues.hpp"
#include "conn/silent_visit.hpp"
#include "conn/socket_option.hpp"
#include "conn/tcp_options.hpp"
#include "conn/timestamps.hpp"
#include "conn/window.hpp"

namespace tcpmig::conn {
namespace {

std::uint64_t monotonic_ns() {
  timespec now{};
  ::clock_gettime(CLOCK_MONOTONIC, &now);
  return static_cast<std::uint64_t>(now.tv_sec) * 1'000'000'000U +
         static_cast<std::uint64_t>(now.tv_nsec);
}

/// MSG_OOB says EINVAL where there is no urgent byte that waits (and always with SO_OOBINLINE).
bool has_urgent_data(int fd) {
  std::byte byte{};
  return ::recv(fd, &byte, 1, MSG_OOB | MSG_PEEK | MSG_DONTWAIT) >= 0 || errno != EINVAL;
}

/// TCP_ULP answers with its name, and with a length of 0 where there is none.
bool has_ulp(int fd) {
  std::array<char, 16> name{};
  socklen_t length = name.size();
  return ::getsockopt(fd, IPPROTO_TCP, TCP_ULP, name.data(), &length) == 0 && length > 0;
}

/// Memory is charged for what has come (net/core/sock.c, sk_get_meminfo), and nothing of it can be read: it came after a gap. Where something can be
/// read as well it is not known; a FIN, after which nothing comes, is charged too.
bool has_gap(int fd, const abi::tcp_dump& state) {
  if (peer_closed(state) || state.copied_seq != state.rcv_nxt) return false;
  std::array<std::uint32_t, SK_MEMINFO_VARS> memory{};
  socklen_t length = sizeof memory;
  return ::getsockopt(fd, SOL_SOCKET, SO_MEMINFO, memory.data(), &length) == 0 &&
         memory[SK_MEMINFO_RMEM_ALLOC] != 0;
}

std::uint8_t refusals(int fd) {
  unsigned refused = 0;
  if (has_ulp(fd)) refused |= abi::DUMP_ULP;
  if (get_option<int>(fd, SOL_SOCKET, SO_PROTOCOL, "getsockopt SO_PROTOCOL") == IPPROTO_MPTCP)
    refused |= abi::DUMP_MPTCP;
  return static_cast<std::uint8_t>(refused);
}

void dump_info(int fd, abi::tcp_dump& state) {
  const auto info = get_option<::tcp_info>(fd, IPPROTO_TCP, TCP_INFO, "getsockopt TCP_INFO");
  state.state = info.tcpi_state;
  state.srtt_us = info.tcpi_rtt;
  state.packets_out = info.tcpi_unacked;
  state.snd_cwnd = info.tcpi_snd_cwnd;
  state.snd_ssthresh = info.tcpi_snd_ssthresh;
  const NegotiatedOptions options = dump_options(info);
  state.options = options.mask;
  state.snd_wscale = options.wscale.snd;
  state.rcv_wscale = options.wscale.rcv;
}

std::uint8_t dump_state(int fd) {
  return get_option<::tcp_info>(fd, IPPROTO_TCP, TCP_INFO, "getsockopt TCP_INFO").tcpi_state;
}

void dump_received(int fd, abi::tcp_dump& state) {
  state.rcv_nxt = dump_queue_end(fd, Queue::kReceive).value;
  state.copied_seq = end_of_received(state).value - dump_received_length(fd);
}

void dump_endpoints_into(int fd, abi::tcp_dump& state) {
  const Endpoints endpoints = dump_endpoints(fd);
  state.local = endpoints.local.address.raw();
  state.peer = endpoints.peer.address.raw();
  state.local_port = htons(endpoints.local.port);
  state.peer_port = htons(endpoints.peer.port);
  state.ipv6_socket =
      get_option<int>(fd, SOL_SOCKET, SO_DOMAIN, "getsockopt SO_DOMAIN") == AF_INET6;
}

}  // namespace

void dump_send_side(int fd, abi::tcp_dump& state) {
  const QueueLengths lengths = dump_queue_lengths(fd);
  state.snd_una = state.write_seq - lengths.unacknowledged;
  state.snd_nxt = state.write_seq - lengths.unsent;
}

Dump dump_by_repair(int fd, std::optional<SilentVisit>& silence) {
  Dump dump;
  abi::tcp_dump& state = dump.state;
  state.refused = refusals(fd);
  if ((state.refused & abi::DUMP_MPTCP) != 0) return dump;  // has no TCP_REPAIR
  dump_info(fd, state);
  if (!to_tcp_state(state.state)) return dump;  // refused anyway
  if (has_urgent_data(fd)) state.refused |= abi::DUMP_URGENT;
  dump_endpoints_into(fd, state);
  silence.emplace(fd);
  state.now_ns = monotonic_ns();
  // First, for with the send queue selected they are not to be relied on (SilentVisit).
  const QueueLengths lengths = dump_queue_lengths(fd);
  dump_received(fd, state);
  // A FIN that has slipped in between would count as a byte: the state belongs to the numbers.
  if (const std::uint8_t before = std::exchange(state.state, dump_state(fd)); before != state.state)
    dump_received(fd, state);
  state.write_seq = dump_queue_end(fd, Queue::kSend).value;
  state.snd_una = state.write_seq - lengths.unacknowledged;
  state.snd_nxt = state.write_seq - lengths.unsent;
  if (has_gap(fd, state)) state.refused |= abi::DUMP_OUT_OF_ORDER;
  take_window(silence->window(), state);
  state.mss_clamp = dump_mss(fd);
  if ((state.options & abi::WIRE_OPT_TIMESTAMPS) != 0) state.tsval_now = silence->tsval();
  return dump;
}

}  // namespace tcpmig::conn
