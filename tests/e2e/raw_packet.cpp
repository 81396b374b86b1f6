// SPDX-License-Identifier: MIT
#include "e2e/raw_packet.hpp"

#include <arpa/inet.h>
#include <netinet/udp.h>
#include <sys/socket.h>

#include "e2e/ip_packet.hpp"
#include "sys/check.hpp"
#include "sys/netns.hpp"

namespace tcpmig::e2e {
namespace {

template <typename Header>
std::string bytes_of(const Header& header) {
  return {reinterpret_cast<const char*>(&header), sizeof header};
}

}  // namespace

RawSocket::RawSocket(const TestLab& lab, const std::string& node, bool ipv6) {
  const sys::EnterNetns inside(lab.netns(node));
  fd_.reset(sys::check("raw socket",
                       ::socket(ipv6 ? AF_INET6 : AF_INET, SOCK_RAW | SOCK_CLOEXEC, IPPROTO_RAW)));
}

void RawSocket::send(const sys::Address& from, const sys::Address& to, std::uint8_t protocol,
                     const std::string& segment) const {
  const std::string packet = ip_header(from, to, protocol, segment.size()) + segment;
  const auto [address, length] = sys::Endpoint{to, 0}.to_sockaddr();
  sys::check("send a forged packet", ::sendto(fd_.get(), packet.data(), packet.size(), 0,
                                              reinterpret_cast<const sockaddr*>(&address), length));
}

void RawSocket::send_tcp(const sys::Address& from, const sys::Address& to, tcphdr header) const {
  header.check = 0;
  header.check = transport_checksum(from, to, IPPROTO_TCP, bytes_of(header));
  send(from, to, IPPROTO_TCP, bytes_of(header));
}

void RawSocket::send_udp(const sys::Endpoint& from, const sys::Endpoint& to,
                         const std::string& payload) const {
  udphdr header{};
  header.source = htons(from.port);
  header.dest = htons(to.port);
  header.len = htons(static_cast<std::uint16_t>(sizeof header + payload.size()));
  header.check =
      transport_checksum(from.address, to.address, IPPROTO_UDP, bytes_of(header) + payload);
  send(from.address, to.address, IPPROTO_UDP, bytes_of(header) + payload);
}

}  // namespace tcpmig::e2e
