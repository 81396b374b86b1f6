// SPDX-License-Identifier: MIT
#pragma once
#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "sys/address.hpp"

/// Packets for BPF_PROG_TEST_RUN: written as layers, `Ethernet{} / IPv4{} / Tcp{}`, read back as a
/// flat View that has verified every checksum.
namespace packets {

using tcpmig::sys::Address;
using Bytes = std::vector<std::uint8_t>;
using Mac = std::array<std::uint8_t, 6>;

enum TcpFlag : std::uint8_t { kFin = 1, kSyn = 2, kRst = 4, kPsh = 8, kAck = 16, kUrg = 32 };

struct Ethernet {
  Mac destination{}, source{};
  std::optional<std::uint16_t> type = {};  ///< from the layer above
};

struct IPv4 {
  Address source = {}, destination = {};
  std::uint8_t ttl = 64, tos = 0;
  Bytes options = {};  ///< a multiple of four bytes
  bool dont_fragment = true, more_fragments = false;
  std::uint16_t fragment_offset = 0;  ///< in units of eight bytes
  std::optional<std::uint8_t> protocol = {};
  std::optional<std::uint16_t> total_length = {};
};

struct Extension {
  std::uint8_t kind;
  Bytes body;  ///< without the next-header byte
};

struct IPv6 {
  Address source = {}, destination = {};
  std::uint8_t ttl = 64;
  std::vector<Extension> extensions = {};
  std::optional<std::uint8_t> protocol = {};
  std::optional<std::uint16_t> payload_length = {};
};

struct Tcp {
  std::uint16_t source = 0, destination = 0;
  std::uint32_t seq = 0, ack = 0;
  std::uint8_t flags = kAck;
  Bytes payload = {};
  Bytes options = {};
  std::optional<std::uint8_t> offset = {};  ///< in words
};

struct Udp {
  std::uint16_t source = 0, destination = 0;
  Bytes payload = {};
  bool checksum = true;
  std::optional<std::uint16_t> length = {};
};

struct Icmp {
  std::uint8_t type = 0, code = 0;
  std::uint32_t rest = 0;
  Bytes payload = {};
};

using Ip = std::variant<IPv4, IPv6>;
using Transport = std::variant<Bytes, Tcp, Udp, Icmp>;

/// The header of the addresses' family.
Ip ip(const Address& source, const Address& destination, std::uint8_t ttl = 64);

struct Packet {
  Ethernet ethernet;
  Ip network;
  Transport transport;
  [[nodiscard]] Bytes bytes() const;
  [[nodiscard]] Bytes ip_bytes() const;  ///< without the Ethernet header
};

struct Frame {
  Ethernet ethernet;
  Ip network;
};

inline Frame operator/(const Ethernet& ethernet, const Ip& network) { return {ethernet, network}; }
inline Packet operator/(const Frame& frame, const Transport& transport) {
  return {frame.ethernet, frame.network, transport};
}

/// What came out.
struct View {
  Mac mac_destination{}, mac_source{};
  Address source, destination;
  int family = 0;
  std::uint8_t ttl = 0, protocol = 0;
  std::uint16_t source_port = 0, destination_port = 0;
  std::uint32_t seq = 0, ack = 0;
  std::uint8_t flags = 0, icmp_type = 0, icmp_code = 0;
  bool udp_checksum = false;
  Bytes options;      ///< of TCP
  Bytes payload;      ///< after the transport header; of ICMP, the quoted packet
  std::string fault;  ///< empty: well-formed, all checksums right
};

View read(const Bytes& frame);
/// A packet that begins with its IP header. `whole` false: quoted in ICMP, cut off, so that the
/// checksum of its transport can be verified only if all of it is there.
View read_ip(const Bytes& packet, bool whole = true);

}  // namespace packets
