// SPDX-License-Identifier: MIT
#include "agent/segments.hpp"

#include <netinet/in.h>
#include <netinet/ip.h>
#include <netinet/ip6.h>
#include <netinet/tcp.h>

#include <algorithm>
#include <array>

namespace tcpmig::agent {
namespace {

constexpr std::size_t kTimestampsSize = 12;  // NOP NOP TIMESTAMPS(10)

template <typename Header>
void put(Bytes& bytes, std::size_t offset, const Header& header) {
  std::memcpy(bytes.data() + offset, &header, sizeof header);
}

template <typename Header>
std::optional<Header> get(std::span<const std::byte> bytes, std::size_t offset = 0) {
  if (bytes.size() < offset + sizeof(Header)) return std::nullopt;
  Header header{};
  std::memcpy(&header, bytes.data() + offset, sizeof header);
  return header;
}

/// The client's window as it stands in a header: scaled down by what it announced on its SYN.
std::uint16_t window_of(const abi::wire_header& commit) {
  const unsigned scale = commit.options & abi::WIRE_OPT_WSCALE ? commit.snd_wscale & 15U : 0;
  return static_cast<std::uint16_t>(std::min(ntohl(commit.snd_wnd) >> scale, 0xffffU));
}

Bytes make_segment(tcphdr tcp, std::size_t options, std::span<const std::byte> payload) {
  Bytes segment(sizeof tcp + options + payload.size());
  tcp.doff = static_cast<unsigned>((sizeof tcp + options) / 4) & 15U;
  tcp.ack = 1;
  tcp.psh = 1;
  put(segment, 0, tcp);
  std::ranges::copy(payload, segment.begin() + static_cast<std::ptrdiff_t>(sizeof tcp + options));
  return segment;
}

}  // namespace

Bytes opening_segment(const abi::wire_header& commit, std::uint32_t seq,
                      std::span<const std::byte> payload, bool fin) {
  tcphdr tcp{};
  tcp.seq = htonl(seq);
  tcp.ack_seq = commit.snd_nxt;
  tcp.window = htons(window_of(commit));
  tcp.fin = fin;
  if (!(commit.options & abi::WIRE_OPT_TIMESTAMPS)) return make_segment(tcp, 0, payload);
  Bytes segment = make_segment(tcp, kTimestampsSize, payload);
  // The child's round-trip time is now minus what is echoed.
  const std::uint32_t rtt = ntohl(commit.srtt_us);
  const std::uint32_t echo =
      ntohl(commit.tsval_now) - (commit.options & abi::WIRE_OPT_USEC_TS ? rtt : rtt / 1000);
  constexpr std::array<std::uint8_t, 4> kKind{TCPOPT_NOP, TCPOPT_NOP, TCPOPT_TIMESTAMP,
                                              TCPOLEN_TIMESTAMP};
  put(segment, sizeof tcp, kKind);
  put(segment, sizeof tcp + 4, commit.ts_recent);
  put(segment, sizeof tcp + 8, htonl(echo));
  return segment;
}

Bytes further_segment(const abi::wire_header& commit, std::uint32_t seq, std::uint32_t ack,
                      std::span<const std::byte> payload, bool fin) {
  tcphdr tcp{};
  tcp.seq = htonl(seq);
  tcp.ack_seq = htonl(ack);
  tcp.window = htons(window_of(commit));
  tcp.fin = fin;
  return make_segment(tcp, 0, payload);
}

Bytes acknowledgement(std::uint32_t ack) {
  tcphdr tcp{};
  tcp.ack_seq = htonl(ack);
  return make_segment(tcp, 0, {});
}

bool set_acknowledgement(std::span<std::byte> segment, std::uint32_t ack) {
  auto tcp = get<tcphdr>(segment);
  if (!tcp) return false;
  tcp->ack_seq = htonl(ack);
  tcp->ack = 1;
  std::memcpy(segment.data(), &*tcp, sizeof *tcp);
  return true;
}

std::optional<SegmentData> data_of(std::span<const std::byte> segment) {
  const auto tcp = get<tcphdr>(segment);
  if (!tcp || tcp->doff * 4U < sizeof *tcp || tcp->doff * 4U > segment.size()) return std::nullopt;
  return SegmentData{ntohl(tcp->seq), segment.subspan(tcp->doff * 4U)};
}

std::optional<StrayPacket> parse_stray(std::span<const std::byte> packet) {
  StrayPacket stray;
  abi::flow_key& flow = stray.flow;
  std::size_t l4 = sizeof(ip6_hdr);
  if (const auto ip = get<iphdr>(packet); ip && ip->version == 4) {
    if (ip->protocol != IPPROTO_TCP || ip->ihl < 5) return std::nullopt;
    l4 = ip->ihl * 4U;
    flow.client = sys::Address::from_v4({.s_addr = ip->saddr}).raw();
    flow.vip = sys::Address::from_v4({.s_addr = ip->daddr}).raw();
    flow.family = abi::FAMILY_IPV4;
  } else {
    const auto ip6 = get<ip6_hdr>(packet);
    if (!ip6 || ip6->ip6_nxt != IPPROTO_TCP) return std::nullopt;
    flow.client = sys::Address::from_v6(ip6->ip6_src).raw();
    flow.vip = sys::Address::from_v6(ip6->ip6_dst).raw();
    flow.family = abi::FAMILY_IPV6;
  }
  const auto tcp = get<tcphdr>(packet, l4);
  if (!tcp) return std::nullopt;
  flow.client_port = tcp->source;
  stray.seq = ntohl(tcp->seq);
  stray.tcp = l4;
  return stray;
}

}  // namespace tcpmig::agent
