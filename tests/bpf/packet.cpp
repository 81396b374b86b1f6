// SPDX-License-Identifier: MIT
#include "bpf/packet.hpp"

#include <algorithm>
#include <cstddef>
#include <span>

namespace packets {
namespace {

constexpr std::uint8_t kIcmp = 1, kTcp = 6, kUdp = 17, kIcmpV6 = 58;

void put16(Bytes& to, std::size_t value) {
  to.push_back(static_cast<std::uint8_t>(value >> 8));
  to.push_back(static_cast<std::uint8_t>(value));
}

void put32(Bytes& to, std::uint32_t value) {
  put16(to, value >> 16);
  put16(to, value & 0xffff);
}

void set16(Bytes& to, std::size_t at, std::size_t value) {
  to.at(at) = static_cast<std::uint8_t>(value >> 8);
  to.at(at + 1) = static_cast<std::uint8_t>(value);
}

void append(Bytes& to, std::span<const std::uint8_t> from) {
  to.insert(to.end(), from.begin(), from.end());
}

std::uint16_t get16(const Bytes& from, std::size_t at) {
  return static_cast<std::uint16_t>(from.at(at) << 8 | from.at(at + 1));
}

std::uint32_t get32(const Bytes& from, std::size_t at) {
  return static_cast<std::uint32_t>(get16(from, at)) << 16 | get16(from, at + 2);
}

Bytes tail(const Bytes& from, std::size_t at) {
  return {from.begin() + static_cast<std::ptrdiff_t>(std::min(at, from.size())), from.end()};
}

/// RFC 1071, the plain way: as little as possible in common with what is tested.
std::uint16_t checksum(const Bytes& bytes) {
  std::uint32_t sum = 0;
  for (std::size_t i = 0; i < bytes.size(); i += 2)
    sum += static_cast<std::uint32_t>(bytes[i] << 8) + (i + 1 < bytes.size() ? bytes[i + 1] : 0U);
  while (sum >> 16) sum = (sum & 0xffff) + (sum >> 16);
  return static_cast<std::uint16_t>(~sum);
}

void append_address(Bytes& to, const Address& address) {
  const auto raw = address.raw();
  append(to, std::span(raw.bytes).subspan(address.is_ipv4() ? 12 : 0));
}

Bytes pseudo_header(const Address& source, const Address& destination, std::uint8_t protocol,
                    std::size_t length) {
  Bytes bytes;
  append_address(bytes, source);
  append_address(bytes, destination);
  put32(bytes, static_cast<std::uint32_t>(length));
  put32(bytes, protocol);
  return bytes;
}

std::uint16_t transport_checksum(const Address& source, const Address& destination,
                                 std::uint8_t protocol, const Bytes& segment) {
  Bytes bytes;
  if (protocol != kIcmp) bytes = pseudo_header(source, destination, protocol, segment.size());
  append(bytes, segment);
  return checksum(bytes);
}

struct Segment {
  std::uint8_t protocol = 0;
  Bytes bytes;
};

Segment segment_of(const Bytes& raw, bool) { return {253, raw}; }

Segment segment_of(const Tcp& tcp, bool) {
  Segment segment{kTcp, {}};
  Bytes& b = segment.bytes;
  put16(b, tcp.source);
  put16(b, tcp.destination);
  put32(b, tcp.seq);
  put32(b, tcp.ack);
  b.push_back(static_cast<std::uint8_t>(tcp.offset.value_or(5 + tcp.options.size() / 4) << 4));
  b.push_back(tcp.flags);
  put16(b, 1000);
  put32(b, 0);
  append(b, tcp.options);
  append(b, tcp.payload);
  return segment;
}

Segment segment_of(const Udp& udp, bool) {
  Segment segment{kUdp, {}};
  put16(segment.bytes, udp.source);
  put16(segment.bytes, udp.destination);
  put16(segment.bytes, udp.length.value_or(static_cast<std::uint16_t>(8 + udp.payload.size())));
  put16(segment.bytes, 0);
  append(segment.bytes, udp.payload);
  return segment;
}

Segment segment_of(const Icmp& icmp, bool v6) {
  Segment segment{v6 ? kIcmpV6 : kIcmp, {icmp.type, icmp.code, 0, 0}};
  put32(segment.bytes, icmp.rest);
  append(segment.bytes, icmp.payload);
  return segment;
}

std::size_t checksum_offset(std::uint8_t protocol) {
  return protocol == kTcp ? 16 : protocol == kUdp ? 6 : 2;
}

Segment finished(const Transport& transport, const Address& source, const Address& destination,
                 bool v6) {
  Segment segment =
      std::visit([v6](const auto& layer) { return segment_of(layer, v6); }, transport);
  const auto* udp = std::get_if<Udp>(&transport);
  if (std::holds_alternative<Bytes>(transport) || (udp != nullptr && !udp->checksum))
    return segment;
  std::uint16_t sum = transport_checksum(source, destination, segment.protocol, segment.bytes);
  if (udp != nullptr && sum == 0) sum = 0xffff;
  set16(segment.bytes, checksum_offset(segment.protocol), sum);
  return segment;
}

Bytes encode(const IPv4& ip, const Transport& transport) {
  const Segment segment = finished(transport, ip.source, ip.destination, false);
  const std::size_t header = 20 + ip.options.size();
  Bytes b{static_cast<std::uint8_t>(0x40 | header / 4), ip.tos};
  put16(b, ip.total_length.value_or(static_cast<std::uint16_t>(header + segment.bytes.size())));
  put16(b, 0x1234);
  put16(b, (ip.dont_fragment ? 0x4000U : 0U) | (ip.more_fragments ? 0x2000U : 0U) |
               ip.fragment_offset);
  b.push_back(ip.ttl);
  b.push_back(ip.protocol.value_or(segment.protocol));
  put16(b, 0);
  append_address(b, ip.source);
  append_address(b, ip.destination);
  append(b, ip.options);
  set16(b, 10, checksum(b));
  append(b, segment.bytes);
  return b;
}

Bytes encode(const IPv6& ip, const Transport& transport) {
  const Segment segment = finished(transport, ip.source, ip.destination, true);
  Bytes body;
  for (std::size_t i = 0; i < ip.extensions.size(); i++) {
    const bool last = i + 1 == ip.extensions.size();
    body.push_back(last ? ip.protocol.value_or(segment.protocol) : ip.extensions[i + 1].kind);
    append(body, ip.extensions[i].body);
  }
  append(body, segment.bytes);
  Bytes b;
  put32(b, 0x60000000);
  put16(b, ip.payload_length.value_or(static_cast<std::uint16_t>(body.size())));
  b.push_back(ip.extensions.empty() ? ip.protocol.value_or(segment.protocol)
                                    : ip.extensions[0].kind);
  b.push_back(ip.ttl);
  append_address(b, ip.source);
  append_address(b, ip.destination);
  append(b, body);
  return b;
}

Address address_at(const Bytes& from, std::size_t at, bool v6) {
  tcpmig::abi::ip_address raw{};
  if (v6) {
    std::copy_n(from.begin() + static_cast<std::ptrdiff_t>(at), 16, raw.bytes);
  } else {
    raw.bytes[10] = raw.bytes[11] = 0xff;
    std::copy_n(from.begin() + static_cast<std::ptrdiff_t>(at), 4, raw.bytes + 12);
  }
  return Address(raw);
}

/// Fills in the transport header.
void read_transport(View& view, const Bytes& segment, bool whole) {
  if (view.protocol == kTcp || view.protocol == kUdp) {
    view.source_port = get16(segment, 0);
    view.destination_port = get16(segment, 2);
  }
  if (view.protocol == kTcp && segment.size() >= 20) {
    view.seq = get32(segment, 4);
    view.ack = get32(segment, 8);
    view.flags = segment[13];
    const std::size_t header = std::min<std::size_t>(segment.size(), (segment[12] >> 4) * 4U);
    view.payload = tail(segment, header);
    if (header > 20) view.options.assign(segment.begin() + 20, segment.begin() + header);
  } else if (view.protocol == kUdp) {
    view.udp_checksum = get16(segment, 6) != 0;
    view.payload = tail(segment, 8);
    if (whole && get16(segment, 4) != segment.size()) view.fault += "UDP length; ";
  } else if (view.protocol == kIcmp || view.protocol == kIcmpV6) {
    view.icmp_type = segment.at(0);
    view.icmp_code = segment.at(1);
    view.payload = tail(segment, 8);
  }
  const bool known = view.protocol == kTcp || view.protocol == kUdp || view.protocol == kIcmp ||
                     view.protocol == kIcmpV6;
  if (!whole || !known || (view.protocol == kUdp && view.family == 4 && !view.udp_checksum)) return;
  if (transport_checksum(view.source, view.destination, view.protocol, segment) != 0)
    view.fault += "transport checksum; ";
}

}  // namespace

Ip ip(const Address& source, const Address& destination, std::uint8_t ttl) {
  if (destination.is_ipv4()) return IPv4{.source = source, .destination = destination, .ttl = ttl};
  return IPv6{.source = source, .destination = destination, .ttl = ttl};
}

Bytes Packet::ip_bytes() const {
  return std::visit([this](const auto& header) { return encode(header, transport); }, network);
}

Bytes Packet::bytes() const {
  Bytes frame(ethernet.destination.begin(), ethernet.destination.end());
  append(frame, ethernet.source);
  put16(frame, ethernet.type.value_or(std::holds_alternative<IPv4>(network) ? 0x0800 : 0x86dd));
  append(frame, ip_bytes());
  return frame;
}

View read_ip(const Bytes& packet, bool whole) {
  View view;
  if (packet.size() < 20) return view.fault = "no IP header", view;
  const bool v6 = packet[0] >> 4 == 6;
  view.family = v6 ? 6 : 4;
  std::size_t header = v6 ? 40 : static_cast<std::size_t>(packet[0] & 15) * 4;
  const std::size_t length = v6 ? get16(packet, 4) + 40U : get16(packet, 2);
  view.protocol = packet[v6 ? 6 : 9];
  view.ttl = packet[v6 ? 7 : 8];
  view.source = address_at(packet, v6 ? 8 : 12, v6);
  view.destination = address_at(packet, v6 ? 24 : 16, v6);
  if (!v6 && checksum({packet.begin(), packet.begin() + static_cast<std::ptrdiff_t>(header)}) != 0)
    view.fault += "IP checksum; ";
  while (v6 && (view.protocol == 0 || view.protocol == 60 || view.protocol == 43 ||
                view.protocol == 44)) {
    const std::size_t size = view.protocol == 44 ? 8 : (packet.at(header + 1) + 1U) * 8;
    view.protocol = packet.at(header);
    header += size;
  }
  if (whole && length != packet.size()) view.fault += "IP length; ";
  read_transport(view, tail(packet, header), whole || length == packet.size());
  return view;
}

View read(const Bytes& frame) {
  View view = read_ip(tail(frame, 14));
  std::copy_n(frame.begin(), 6, view.mac_destination.begin());
  std::copy_n(frame.begin() + 6, 6, view.mac_source.begin());
  return view;
}

}  // namespace packets
