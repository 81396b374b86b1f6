// SPDX-License-Identifier: MIT
#pragma once
#include <netinet/in.h>

#include <cstdint>

namespace tcpmig::conn {

/// What a repair helper does for a process without CAP_NET_ADMIN.
enum class RepairOperation : std::uint32_t {
  kEnter = 1,          ///< TCP_REPAIR on
  kLeave = 2,          ///< .. off, without a packet
  kLeaveAndAsk = 3,    ///< .. off, with a window probe
  kSendBuffer = 4,     ///< SO_SNDBUFFORCE `value`
  kReceiveBuffer = 5,  ///< SO_RCVBUFFORCE `value`
  kMark = 6,           ///< SO_MARK `value`; only where the helper was told to allow it
  kPriority = 7,       ///< SO_PRIORITY `value`; likewise
  /// what an earlier connection between `local` and `peer` has left, in TIME_WAIT
  kEndTimeWait = 8,
  /// SO_ATTACH_FILTER of a filter that drops everything (SocketLock); whoever has the socket may take it off
  kLock = 9,
  kTellEnd = 10,  ///< the peer's FIN, or its acknowledgement of ours, is made up: `seq`, ..
};

/// One datagram (SOCK_SEQPACKET) with one descriptor, that of the connection; it is answered by an errno of four bytes, 0 for done, and the helper
/// closes. Numbers are in host order: both are processes of one machine.
struct RepairRequest {
  std::uint32_t magic = kMagic;
  RepairOperation operation{};
  std::uint32_t value = 0;
  // kTellEnd
  std::uint32_t seq = 0, ack = 0;
  std::uint16_t window = 0;  ///< as in the TCP header
  std::uint16_t fin = 0;     ///< 1: the peer has closed
  // kEndTimeWait; IPv4 as v4-mapped
  in6_addr local{}, peer{};
  std::uint16_t local_port = 0, peer_port = 0;

  static constexpr std::uint32_t kMagic = 0x746d'7201;  // "tmr", version 1
};
static_assert(sizeof(RepairRequest) == 64 - sizeof(std::uint32_t));

}  // namespace tcpmig::conn
