// SPDX-License-Identifier: MIT
#include "conn/dump.hpp"

#include <arpa/inet.h>
#include <linux/bpf.h>
#include <sys/socket.h>

#include <array>
#include <cerrno>
#include <utility>

#include "sys/check.hpp"

namespace tcpmig::conn {

std::optional<Dump> dump_by_program(int fd, Scope scope) {
  const bool whole = scope == Scope::kWhole;
  abi::tcp_whole_dump dump{};
  socklen_t length = whole ? sizeof(dump) : sizeof(dump.state);
  const int name = whole ? int{abi::DUMP_WHOLE_OPTNAME} : int{abi::DUMP_OPTNAME};
  if (::getsockopt(fd, abi::DUMP_LEVEL, name, &dump, &length) == 0)
    return Dump{dump.state, true, whole ? std::optional(dump.settings) : std::nullopt};
  // what TCP (IPv4, IPv6) and other protocols say to a level they do not know
  if (errno == ENOPROTOOPT || errno == EOPNOTSUPP) return std::nullopt;
  sys::check("getsockopt dump", -1);
  return std::nullopt;
}

namespace {

struct Reason {
  unsigned bit;
  const char* text;
};

constexpr std::array kReasons{
    Reason{abi::DUMP_URGENT, "urgent data is waiting"},
    Reason{abi::DUMP_ULP, "an upper layer protocol (kTLS or such) is on the socket"},
    Reason{abi::DUMP_MPTCP, "the connection is MPTCP"},
    Reason{abi::DUMP_MD5_AO, "the connection is signed (TCP-MD5 or TCP-AO)"},
    Reason{abi::DUMP_ACCECN, "the connection uses accurate ECN"},
};

/// linux/bpf.h has the states of a TCP socket in its user API; linux/tcp.h does not.
std::string state_name(unsigned state) {
  switch (state) {
    case BPF_TCP_ESTABLISHED:
      return "ESTABLISHED";
    case BPF_TCP_SYN_SENT:
      return "SYN_SENT";
    case BPF_TCP_SYN_RECV:
      return "SYN_RECV";
    case BPF_TCP_FIN_WAIT1:
      return "FIN_WAIT1";
    case BPF_TCP_FIN_WAIT2:
      return "FIN_WAIT2";
    case BPF_TCP_TIME_WAIT:
      return "TIME_WAIT";
    case BPF_TCP_CLOSE:
      return "CLOSE";
    case BPF_TCP_CLOSE_WAIT:
      return "CLOSE_WAIT";
    case BPF_TCP_LAST_ACK:
      return "LAST_ACK";
    case BPF_TCP_LISTEN:
      return "LISTEN";
    case BPF_TCP_CLOSING:
      return "CLOSING";
    default:
      return std::to_string(state);
  }
}

}  // namespace

bool peer_closed(const abi::tcp_dump& state) {
  return state.state == BPF_TCP_CLOSE_WAIT || state.state == BPF_TCP_LAST_ACK ||
         state.state == BPF_TCP_CLOSING;
}

Seq end_of_received(const abi::tcp_dump& state) {
  return Seq{state.rcv_nxt} - (peer_closed(state) ? 1 : 0);
}

Seq end_of_written(const abi::tcp_dump& state) {
  const bool open = state.state == BPF_TCP_ESTABLISHED || state.state == BPF_TCP_CLOSE_WAIT;
  return Seq{state.write_seq} - (open ? 0 : 1);
}

namespace {

/// A request that has come, and nothing said yet.
std::optional<std::string> more_than_a_request(const abi::tcp_dump& state) {
  if (state.state != BPF_TCP_ESTABLISHED && state.state != BPF_TCP_CLOSE_WAIT)
    return "the connection is not established (" + state_name(state.state) + ")";
  if (state.snd_nxt != state.write_seq)
    return "unsent data (" + std::to_string(state.write_seq - state.snd_nxt) + " bytes)";
  if (state.snd_una != state.snd_nxt)
    return "unacknowledged data (" + std::to_string(state.snd_nxt - state.snd_una) + " bytes)";
  return std::nullopt;
}

Seq earlier(Seq one, Seq other) { return one.before(other) ? one : other; }

/// As the numbers are without the peer's FIN.
RepairWindow window_of(const abi::tcp_dump& state) {
  const bool counts_fin = Seq{state.rcv_wup}.after(end_of_received(state));
  return {.snd_wl1 = state.snd_wl1,
          .snd_wnd = state.snd_wnd,
          .max_window = state.max_window,
          .rcv_wnd = state.rcv_wnd + (counts_fin ? 1 : 0),
          .rcv_wup = state.rcv_wup - (counts_fin ? 1 : 0)};
}

}  // namespace

void take_window(const RepairWindow& window, abi::tcp_dump& state) {
  state.snd_wl1 = window.snd_wl1;
  state.snd_wnd = window.snd_wnd;
  state.max_window = window.max_window;
  state.rcv_wnd = window.rcv_wnd;
  state.rcv_wup = window.rcv_wup;
}

std::optional<std::string> refusal(const abi::tcp_dump& state, Scope scope) {
  for (const Reason& reason : kReasons)
    if ((state.refused & reason.bit) != 0) return reason.text;
  if (state.repair != 0) return "the socket is in repair mode already";
  if (scope == Scope::kRequest) return more_than_a_request(state);
  if ((state.refused & abi::DUMP_OUT_OF_ORDER) != 0)
    return "data of the peer has come out of order; what it says after the gap is not carried: try "
           "again when the gap is filled";
  if (!to_tcp_state(state.state))
    return "a connection in state " + state_name(state.state) + " cannot be carried";
  return std::nullopt;
}

Snapshot to_snapshot(const Dump& dump, std::vector<std::byte> received) {
  const abi::tcp_dump& state = dump.state;
  Snapshot snapshot;
  snapshot.local = {sys::Address(state.local), ntohs(state.local_port)};
  snapshot.peer = {sys::Address(state.peer), ntohs(state.peer_port)};
  snapshot.rcv_nxt = end_of_received(state);
  snapshot.mapped = state.ipv6_socket != 0 && snapshot.local.address.is_ipv4();
  snapshot.state = to_tcp_state(state.state).value_or(TcpState::kEstablished);
  snapshot.snd_una = earlier({state.snd_una}, end_of_written(state));
  snapshot.snd_nxt = earlier({state.snd_nxt}, end_of_written(state));
  snapshot.received = std::move(received);
  snapshot.window = window_of(state);
  snapshot.snd_wnd = state.snd_wnd;
  snapshot.mss = state.mss_clamp;
  if ((state.options & abi::WIRE_OPT_WSCALE) != 0)
    snapshot.wscale = WindowScale{.snd = state.snd_wscale, .rcv = state.rcv_wscale};
  if ((state.options & abi::WIRE_OPT_TIMESTAMPS) != 0)
    snapshot.timestamps = Timestamps{
        .tsval_now = state.tsval_now,
        .ts_recent = dump.knows_ts_recent ? std::optional(state.ts_recent) : std::nullopt,
        .microseconds = (state.options & abi::WIRE_OPT_USEC_TS) != 0};
  snapshot.sack = (state.options & abi::WIRE_OPT_SACK) != 0;
  snapshot.ecn = (state.options & abi::WIRE_OPT_ECN) != 0;
  snapshot.srtt_us = state.srtt_us;
  snapshot.snd_cwnd = state.snd_cwnd;
  snapshot.snd_ssthresh = state.snd_ssthresh;
  return snapshot;
}

}  // namespace tcpmig::conn
