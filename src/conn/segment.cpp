// SPDX-License-Identifier: MIT
#include "conn/segment.hpp"

#include <arpa/inet.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <linux/tcp.h>
#include <netinet/in.h>

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <vector>

namespace tcpmig::conn {
namespace {

constexpr std::size_t kMostData = 60'000;  // of one packet; with all headers below 65,535
constexpr std::uint8_t kHops = 64;

/// RFC 1071, sum not yet complemented.
std::uint32_t add_up(std::span<const std::byte> bytes, std::uint32_t sum) {
  std::uint64_t wide = sum;
  for (std::size_t i = 0; i + 1 < bytes.size(); i += 2)
    wide += std::to_integer<std::uint32_t>(bytes[i]) << 8 |
            std::to_integer<std::uint32_t>(bytes[i + 1]);
  if (bytes.size() % 2 == 1) wide += std::to_integer<std::uint32_t>(bytes.back()) << 8;
  while (wide >> 16 != 0) wide = (wide & 0xffff) + (wide >> 16);
  return static_cast<std::uint32_t>(wide);
}

std::uint16_t finish(std::uint32_t sum) { return htons(static_cast<std::uint16_t>(~sum)); }

/// Source, destination, protocol and length: summed up with the segment (RFC 9293, 3.1; RFC
/// 8200, 8.1). That IPv4 addresses are v4-mapped would add ffff twice, which is zero in this
/// arithmetic, but they are not summed up here.
std::uint32_t pseudo_header(const sys::Address& from, const sys::Address& to, std::size_t length) {
  const abi::ip_address source = from.raw(), destination = to.raw();
  const std::size_t skip = from.is_ipv4() ? 12 : 0;
  std::uint32_t sum = add_up(std::as_bytes(std::span(source.bytes)).subspan(skip), 0);
  sum = add_up(std::as_bytes(std::span(destination.bytes)).subspan(skip), sum);
  return sum + IPPROTO_TCP + static_cast<std::uint32_t>(length);
}

template <typename Header>
std::span<const std::byte> bytes_of(const Header& header) {
  return std::as_bytes(std::span(&header, 1));
}

void append_ip_header(std::vector<std::byte>& packet, const sys::Address& from,
                      const sys::Address& to, std::size_t length) {
  const auto append = [&](std::span<const std::byte> bytes) {
    packet.insert(packet.end(), bytes.begin(), bytes.end());
  };
  if (from.is_ipv4()) {
    iphdr ip{};
    ip.version = 4;
    ip.ihl = 5;
    ip.tot_len = htons(static_cast<std::uint16_t>(sizeof(ip) + length));
    ip.frag_off = htons(0x4000);  // don't fragment
    ip.ttl = kHops;
    ip.protocol = IPPROTO_TCP;
    ip.saddr = from.v4().s_addr;
    ip.daddr = to.v4().s_addr;
    ip.check = finish(add_up(bytes_of(ip), 0));
    append(bytes_of(ip));
    return;
  }
  ipv6hdr ip{};
  ip.version = 6;
  ip.payload_len = htons(static_cast<std::uint16_t>(length));
  ip.nexthdr = IPPROTO_TCP;
  ip.hop_limit = kHops;
  ip.saddr = from.v6();
  ip.daddr = to.v6();
  append(bytes_of(ip));
}

/// The TCP header of the part of a segment that begins at `offset` of its data.
tcphdr header_of_part(tcphdr header, std::size_t offset, bool last) {
  header.seq = htonl(ntohl(header.seq) + static_cast<std::uint32_t>(offset));
  header.check = 0;
  if (!last) header.fin = header.psh = 0;
  return header;
}

}  // namespace

bool give_packets(const sys::Endpoint& from, const sys::Endpoint& to,
                  std::span<const std::byte> segment,
                  const std::function<void(std::span<const std::byte>)>& give) {
  tcphdr header{};
  if (segment.size() < sizeof(header)) return false;
  std::memcpy(&header, segment.data(), sizeof(header));
  const std::size_t header_length = header.doff * 4U;
  if (header_length < sizeof(header) || header_length > segment.size()) return false;
  header.source = htons(from.port);
  header.dest = htons(to.port);
  const auto options = segment.subspan(sizeof(header), header_length - sizeof(header));
  const auto data = segment.subspan(header_length);

  std::size_t offset = 0;
  do {
    const auto part = data.subspan(offset, std::min(kMostData, data.size() - offset));
    const bool last = offset + part.size() == data.size();
    tcphdr tcp = header_of_part(header, offset, last);
    const std::size_t length = header_length + part.size();
    std::uint32_t sum = pseudo_header(from.address, to.address, length);
    sum = add_up(part, add_up(options, add_up(bytes_of(tcp), sum)));
    tcp.check = finish(sum);

    std::vector<std::byte> packet;
    packet.reserve(sizeof(ipv6hdr) + length);
    append_ip_header(packet, from.address, to.address, length);
    for (const auto piece : {bytes_of(tcp), options, part})
      packet.insert(packet.end(), piece.begin(), piece.end());
    give(packet);
    offset += part.size();
  } while (offset < data.size());
  return true;
}

std::vector<std::byte> readdress(const sys::Endpoint& from, const sys::Endpoint& to,
                                 std::span<const std::byte> segment) {
  const std::size_t ip_header = from.address.is_ipv4() ? sizeof(iphdr) : sizeof(ipv6hdr);
  std::vector<std::byte> result;
  give_packets(from, to, segment, [&](std::span<const std::byte> packet) {
    const auto own = packet.subspan(ip_header);
    if (result.empty()) result.assign(own.begin(), own.end());
  });
  return result;
}

bool is_intact(const sys::Endpoint& from, const sys::Endpoint& to,
               std::span<const std::byte> segment) {
  tcphdr header{};
  if (segment.size() < sizeof(header)) return false;
  std::memcpy(&header, segment.data(), sizeof(header));
  const std::uint32_t pseudo = add_up({}, pseudo_header(from.address, to.address, segment.size()));
  if (add_up(segment, pseudo) == 0xffff) return true;
  return ntohs(header.check) % 0xffffU == pseudo % 0xffffU;  // zero has two forms
}

}  // namespace tcpmig::conn
