// SPDX-License-Identifier: MIT
#include "e2e/ip_packet.hpp"

#include <arpa/inet.h>
#include <netinet/ip.h>
#include <netinet/ip6.h>
#include <netinet/tcp.h>

#include <cstring>
#include <string_view>

namespace tcpmig::e2e {
namespace {

// option kinds (RFC 9293, 7323, 2018, 2385, 7413)
enum : std::uint8_t { kEnd, kNop, kMss, kWscale, kSackOk, kSack, kTs = 8, kMd5 = 19, kTfo = 34 };

std::uint32_t sum_of(std::string_view bytes) {
  std::uint32_t sum = 0;
  for (std::size_t i = 0; i < bytes.size(); ++i)
    sum += static_cast<std::uint32_t>(static_cast<unsigned char>(bytes[i])) << (i % 2 == 0 ? 8 : 0);
  return sum;
}

std::uint16_t fold(std::uint32_t sum) {
  while (sum >> 16 != 0) sum = (sum & 0xffff) + (sum >> 16);
  return htons(static_cast<std::uint16_t>(~sum));
}

std::string address_bytes(const sys::Address& address) {
  const abi::ip_address raw = address.raw();
  const unsigned skip = address.is_ipv4() ? 12 : 0;
  return {reinterpret_cast<const char*>(raw.bytes) + skip, 16U - skip};
}

template <typename Header>
std::string bytes_of(const Header& header) {
  return {reinterpret_cast<const char*>(&header), sizeof header};
}

template <typename Header>
Header read_as(std::string_view bytes) {
  Header header{};
  std::memcpy(&header, bytes.data(), std::min(sizeof header, bytes.size()));
  return header;
}

std::string be16(std::uint32_t value) { return bytes_of(htons(static_cast<std::uint16_t>(value))); }
std::string be32(std::uint32_t value) { return bytes_of(htonl(value)); }
std::uint32_t number(std::string_view bytes) {
  std::uint32_t value = 0;
  for (const char byte : bytes) value = value << 8 | static_cast<unsigned char>(byte);
  return value;
}

std::string option(std::uint8_t kind, const std::string& value) {
  return std::string{static_cast<char>(kind), static_cast<char>(value.size() + 2)} + value;
}

std::string options_of(const Segment& segment) {
  std::string text;
  if (segment.mss) text += option(kMss, be16(*segment.mss));
  if (segment.wscale) text += option(kWscale, {static_cast<char>(*segment.wscale)});
  if (segment.sack_permitted) text += option(kSackOk, {});
  if (segment.timestamps)
    text += option(kTs, be32(segment.timestamps->first) + be32(segment.timestamps->second));
  if (segment.md5) text += option(kMd5, std::string(16, 'x'));
  if (segment.fast_open) text += option(kTfo, *segment.fast_open);
  if (!segment.sack.empty()) {
    std::string blocks;
    for (const auto& [begin, end] : segment.sack) blocks += be32(begin) + be32(end);
    text += option(kSack, blocks);
  }
  text.resize((text.size() + 3) / 4 * 4, static_cast<char>(kNop));
  return text;
}

void read_option(Segment& segment, std::uint8_t kind, std::string_view value) {
  if (kind == kMss) segment.mss = static_cast<std::uint16_t>(number(value));
  if (kind == kWscale) segment.wscale = static_cast<std::uint8_t>(number(value));
  if (kind == kSackOk) segment.sack_permitted = true;
  if (kind == kTs && value.size() == 8)
    segment.timestamps = {number(value.substr(0, 4)), number(value.substr(4))};
  if (kind == kSack)
    for (; value.size() >= 8; value.remove_prefix(8))
      segment.sack.emplace_back(number(value.substr(0, 4)), number(value.substr(4, 4)));
  if (kind == kTfo) segment.fast_open = std::string(value);
}

void read_options(Segment& segment, std::string_view options) {
  while (!options.empty() && options[0] != kEnd) {
    if (options[0] == kNop) {
      options.remove_prefix(1);
      continue;
    }
    const std::size_t length = options.size() < 2 ? 0 : static_cast<unsigned char>(options[1]);
    if (length < 2 || length > options.size()) return;
    read_option(segment, static_cast<std::uint8_t>(options[0]), options.substr(2, length - 2));
    options.remove_prefix(length);
  }
}

std::string tcp_bytes(const Packet& packet) {
  const Segment& segment = packet.segment;
  const std::string options = options_of(segment);
  tcphdr header{};
  header.source = htons(packet.from.port);
  header.dest = htons(packet.to.port);
  header.seq = htonl(segment.seq);
  header.ack_seq = htonl(segment.ack);
  header.doff = (sizeof header + options.size()) / 4 & 0xfU;
  header.th_flags = segment.flags;
  header.window = htons(segment.window);
  header.urg_ptr = htons(segment.urgent);
  std::string bytes = bytes_of(header) + options + segment.payload;
  header.check = transport_checksum(packet.from.address, packet.to.address, IPPROTO_TCP, bytes);
  if (segment.damaged) header.check ^= 0x0101;
  return bytes.replace(0, sizeof header, bytes_of(header));
}

}  // namespace

std::uint16_t transport_checksum(const sys::Address& from, const sys::Address& to,
                                 std::uint8_t protocol, const std::string& segment) {
  return fold(sum_of(address_bytes(from)) + sum_of(address_bytes(to)) + protocol +
              static_cast<std::uint32_t>(segment.size()) + sum_of(segment));
}

std::string ip_header(const sys::Address& from, const sys::Address& to, std::uint8_t protocol,
                      std::size_t length, std::uint8_t tos) {
  if (from.is_ipv4()) {
    iphdr header{};
    header.version = 4;
    header.ihl = 5;
    header.tos = tos;
    header.tot_len = htons(static_cast<std::uint16_t>(sizeof header + length));
    header.frag_off = htons(IP_DF);
    header.ttl = 64;
    header.protocol = protocol;
    std::memcpy(&header.saddr, address_bytes(from).data(), 4);
    std::memcpy(&header.daddr, address_bytes(to).data(), 4);
    header.check = fold(sum_of(bytes_of(header)));
    return bytes_of(header);
  }
  ip6_hdr header{};
  header.ip6_flow = htonl(6U << 28 | static_cast<std::uint32_t>(tos) << 20);
  header.ip6_plen = htons(static_cast<std::uint16_t>(length));
  header.ip6_nxt = protocol;
  header.ip6_hlim = 64;
  std::memcpy(&header.ip6_src, address_bytes(from).data(), 16);
  std::memcpy(&header.ip6_dst, address_bytes(to).data(), 16);
  return bytes_of(header);
}

std::string to_bytes(const Packet& packet) {
  const std::string tcp = tcp_bytes(packet);
  return ip_header(packet.from.address, packet.to.address, IPPROTO_TCP, tcp.size(),
                   packet.segment.tos) +
         tcp;
}

std::optional<Packet> parse(const std::string& bytes) {
  Packet packet;
  std::string tcp;
  if (bytes.size() >= sizeof(iphdr) && bytes[0] == 0x45) {
    const auto header = read_as<iphdr>(bytes);
    if (header.protocol != IPPROTO_TCP) return std::nullopt;
    packet.from.address = sys::Address::from_v4({header.saddr});
    packet.to.address = sys::Address::from_v4({header.daddr});
    packet.segment.tos = header.tos;
    tcp = bytes.substr(sizeof header, ntohs(header.tot_len) - sizeof header);
  } else if (bytes.size() >= sizeof(ip6_hdr) && (bytes[0] & 0xf0) == 0x60) {
    const auto header = read_as<ip6_hdr>(bytes);
    if (header.ip6_nxt != IPPROTO_TCP) return std::nullopt;
    packet.from.address = sys::Address::from_v6(header.ip6_src);
    packet.to.address = sys::Address::from_v6(header.ip6_dst);
    packet.segment.tos = static_cast<std::uint8_t>(ntohl(header.ip6_flow) >> 20);
    tcp = bytes.substr(sizeof header);
  }
  const auto header = read_as<tcphdr>(tcp);
  const std::size_t length = header.doff * 4UL;
  if (length < sizeof header || length > tcp.size() ||
      transport_checksum(packet.from.address, packet.to.address, IPPROTO_TCP, tcp) != 0)
    return std::nullopt;
  packet.from.port = ntohs(header.source);
  packet.to.port = ntohs(header.dest);
  Segment& segment = packet.segment;
  segment.flags = header.th_flags;
  segment.seq = ntohl(header.seq);
  segment.ack = ntohl(header.ack_seq);
  segment.window = ntohs(header.window);
  segment.urgent = ntohs(header.urg_ptr);
  segment.payload = tcp.substr(length);
  read_options(segment, std::string_view(tcp).substr(sizeof header, length - sizeof header));
  return packet;
}

std::string Segment::str() const {
  std::string text;
  for (int bit = 0; bit < 8; ++bit)
    if ((flags >> bit & 1) != 0) text += "FSRPAUEC"[bit];
  text += " seq " + std::to_string(seq) + " ack " + std::to_string(ack) + " win " +
          std::to_string(window) + " len " + std::to_string(payload.size());
  if (timestamps)
    text += " ts " + std::to_string(timestamps->first) + "/" + std::to_string(timestamps->second);
  return text;
}

}  // namespace tcpmig::e2e
