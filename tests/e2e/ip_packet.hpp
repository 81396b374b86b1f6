// SPDX-License-Identifier: MIT
#pragma once
#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "sys/address.hpp"

/// Packets as bytes, as only root can send them, and what is in those that come.
namespace tcpmig::e2e {

enum TcpFlag : std::uint8_t {
  kFin = 1,
  kSyn = 2,
  kRst = 4,
  kPsh = 8,
  kAck = 16,
  kUrg = 32,
  kEce = 64,
  kCwr = 128
};

/// Of a transport header and its payload, with the pseudo header. In network order.
std::uint16_t transport_checksum(const sys::Address& from, const sys::Address& to,
                                 std::uint8_t protocol, const std::string& segment);
/// `tos`: the whole byte, ECN in its two low bits. `length`: of what follows.
std::string ip_header(const sys::Address& from, const sys::Address& to, std::uint8_t protocol,
                      std::size_t length, std::uint8_t tos = 0);

/// A TCP segment, as fields in host order.
struct Segment {
  std::uint8_t flags = 0;
  std::uint32_t seq = 0, ack = 0;
  std::uint16_t window = 0, urgent = 0;
  std::uint8_t tos = 0;  ///< of its IP header
  std::string payload;

  // options
  std::optional<std::uint16_t> mss;
  std::optional<std::uint8_t> wscale;
  bool sack_permitted = false;
  std::optional<std::pair<std::uint32_t, std::uint32_t>> timestamps;  ///< TSval, TSecr
  std::vector<std::pair<std::uint32_t, std::uint32_t>> sack;
  std::optional<std::string> fast_open;  ///< a cookie; empty: asks for one
  bool md5 = false;                      ///< a signature that means nothing

  bool damaged = false;  ///< its checksum is wrong

  [[nodiscard]] bool has(std::uint8_t flag) const { return (flags & flag) != 0; }
  /// Sequence numbers it takes.
  [[nodiscard]] std::uint32_t length() const {
    return static_cast<std::uint32_t>(payload.size()) + has(kSyn) + has(kFin);
  }
  [[nodiscard]] std::string str() const;
};

struct Packet {
  sys::Endpoint from, to;
  Segment segment;
};

/// The IP packet.
std::string to_bytes(const Packet& packet);
/// nullopt: not TCP, or with a wrong checksum.
std::optional<Packet> parse(const std::string& bytes);

}  // namespace tcpmig::e2e
