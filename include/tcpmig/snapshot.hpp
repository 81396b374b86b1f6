// SPDX-License-Identifier: MIT
#pragma once
#include <cstddef>
#include <cstdint>
#include <expected>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include <tcpmig/address.hpp>

namespace tcpmig {

/// A TCP sequence number (RFC 9293, 3.4): wraps modulo 2^32, so it has no operator<; use before()/after().
struct Seq {
  std::uint32_t value = 0;
  constexpr Seq operator+(std::uint32_t n) const { return {value + n}; }
  constexpr Seq operator-(std::uint32_t n) const { return {value - n}; }
  /// Distance from `other` to this, modulo 2^32.
  constexpr std::uint32_t since(Seq other) const { return value - other.value; }
  constexpr bool before(Seq other) const {
    return static_cast<std::int32_t>(value - other.value) < 0;
  }
  constexpr bool after(Seq other) const { return other.before(*this); }
  constexpr bool operator==(const Seq&) const = default;
};

/// What TCP_REPAIR_WINDOW gives and takes (include/uapi/linux/tcp.h, struct tcp_repair_window). Sequence numbers and bytes.
struct RepairWindow {
  std::uint32_t snd_wl1 = 0;
  std::uint32_t snd_wnd = 0;
  std::uint32_t max_window = 0;
  std::uint32_t rcv_wnd = 0;
  std::uint32_t rcv_wup = 0;
  bool operator==(const RepairWindow&) const = default;
};

/// Window scales, when both ends offered the option on their SYN (RFC 7323, 2.2). 0..14.
struct WindowScale {
  std::uint8_t snd = 0;  ///< to be applied to windows the peer announces
  std::uint8_t rcv = 0;  ///< applied to windows we announce
  bool operator==(const WindowScale&) const = default;
};

/// The timestamps option, when negotiated (RFC 7323, 3).
struct Timestamps {
  std::uint32_t tsval_now = 0;  ///< the TSval this end would send at the moment of the freeze
  std::optional<std::uint32_t>
      ts_recent;              ///< the peer's latest TSval; nullopt where the kernel did not tell
  bool microseconds = false;  ///< tick 1 us instead of 1 ms (Linux 6.7, usec_ts)
  bool operator==(const Timestamps&) const = default;
};

/// The states of a connection that can be carried (RFC 9293, 3.3.2), with the kernel's numbers (include/net/tcp_states.h).
enum class TcpState : std::uint8_t {
  kEstablished = 1,
  kFinWait1 = 4,   ///< we have closed; our FIN is not acknowledged, and perhaps not sent yet
  kFinWait2 = 5,   ///< we have closed, and the peer knows
  kCloseWait = 8,  ///< the peer has closed
  kLastAck = 9,    ///< the peer has closed, then we have; our FIN is not acknowledged
  kClosing = 11,   ///< we have closed, then the peer has; our FIN is not acknowledged
};
/// The peer's FIN has come.
constexpr bool peer_has_closed(TcpState state) noexcept {
  return state == TcpState::kCloseWait || state == TcpState::kLastAck ||
         state == TcpState::kClosing;
}
/// "ESTABLISHED", ..
std::string to_string(TcpState state);
/// nullopt: not one that can be carried.
std::optional<TcpState> to_tcp_state(std::uint8_t number);

/// What an application has set on its socket, as getsockopt() tells it.
struct SocketSettings {
  bool nonblocking = false;             ///< O_NONBLOCK
  bool nodelay = false;                 ///< TCP_NODELAY
  bool cork = false;                    ///< TCP_CORK
  bool keepalive = false;               ///< SO_KEEPALIVE
  std::optional<std::uint32_t> linger;  ///< SO_LINGER, seconds; nullopt: off
  std::uint32_t keep_idle =
      0;  ///< TCP_KEEPIDLE, seconds; 0 here and below: not known, the system's own stays
  std::uint32_t keep_interval = 0;  ///< TCP_KEEPINTVL, seconds
  std::uint32_t keep_count = 0;     ///< TCP_KEEPCNT, probes
  std::uint32_t user_timeout = 0;   ///< TCP_USER_TIMEOUT, milliseconds
  std::uint32_t notsent_lowat = 0;  ///< TCP_NOTSENT_LOWAT, bytes
  std::uint8_t tos = 0;        ///< IP_TOS or IPV6_TCLASS, without the ECN bits (they are TCP's)
  std::uint8_t hops = 0;       ///< IP_TTL or IPV6_UNICAST_HOPS
  std::uint32_t priority = 0;  ///< SO_PRIORITY
  std::uint32_t mark = 0;      ///< SO_MARK
  std::uint32_t send_buffer =
      0;  ///< SO_SNDBUF, bytes as getsockopt() says: with the kernel's own overhead
  std::uint32_t receive_buffer = 0;  ///< SO_RCVBUF, likewise
  bool send_buffer_fixed =
      false;  ///< the application has set it: the kernel does not tune it (SO_BUF_LOCK, Linux 5.14)
  bool receive_buffer_fixed = false;
  std::string
      congestion;  ///< TCP_CONGESTION: "cubic", ..; at most 15 characters; empty: the system's own
  bool operator==(const SocketSettings&) const = default;
};

/// A connection as a plain value: all that is needed to go on with it elsewhere. Lives in memory, in a file or on the wire (codec.hpp).
struct Snapshot {
  Endpoint local;  ///< this end as its kernel sees it
  Endpoint peer;
  bool mapped =
      false;  ///< an AF_INET6 socket that talks IPv4: its application sees v4-mapped addresses

  TcpState state = TcpState::kEstablished;
  Seq rcv_nxt;  ///< the number after the last byte of `received`: that of the next byte, or of the peer's FIN
  Seq snd_una;  ///< oldest byte not acknowledged by the peer
  Seq snd_nxt;  ///< next byte to send, our own FIN omitted; sent holds [snd_una, snd_nxt)
  std::vector<std::byte>
      received;  ///< not yet consumed: [rcv_nxt - size, rcv_nxt); acknowledged, but for what was captured since the freeze
  std::vector<std::byte> sent;    ///< sent, not acknowledged: [snd_una, snd_nxt)
  std::vector<std::byte> unsent;  ///< written by the application, not sent: from snd_nxt on

  std::optional<RepairWindow> window;  ///< nullopt: only snd_wnd is known
  std::uint32_t snd_wnd = 0;           ///< the peer's window, bytes
  std::uint16_t mss = 0;               ///< the peer's MSS (mss_clamp), bytes
  std::optional<WindowScale> wscale;   ///< negotiated options only
  std::optional<Timestamps> timestamps;
  bool sack = false;
  bool ecn = false;
  std::uint32_t srtt_us = 0;   ///< smoothed round-trip time, microseconds; 0 = not known
  std::uint32_t snd_cwnd = 0;  ///< congestion window, segments (RFC 5681); 0 = not known
  std::uint32_t snd_ssthresh =
      0;  ///< slow start threshold, segments; 0 = not known, 2^31 - 1 = nothing was lost yet
  std::optional<SocketSettings>
      settings;  ///< nullopt: not carried, the new socket has the system's own

  /// The peer's FIN has come: the number rcv_nxt is its own.
  [[nodiscard]] bool peer_closed() const noexcept { return peer_has_closed(state); }
  /// This end's application has closed its direction: a FIN follows `unsent`.
  [[nodiscard]] bool closed() const noexcept {
    return state != TcpState::kEstablished && state != TcpState::kCloseWait;
  }
  bool operator==(const Snapshot&) const = default;
};

}  // namespace tcpmig
