// SPDX-License-Identifier: MIT
#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include <algorithm>
#include <bit>
#include <cstring>
#include <memory>

#include <tcpmig/resume.hpp>

#include "conn/raw_socket.hpp"
#include "conn/socket_option.hpp"
#include "sys/check.hpp"

namespace tcpmig {
namespace conn {

sys::UniqueFd open_raw_socket(bool ipv4) {
  // IPPROTO_RAW: the IP header is ours (raw(7)); IPv6 wants to be told
  sys::UniqueFd fd(
      sys::check("raw socket (needs CAP_NET_RAW)",
                 ::socket(ipv4 ? AF_INET : AF_INET6, SOCK_RAW | SOCK_CLOEXEC, IPPROTO_RAW)));
  if (!ipv4) set_option(fd.get(), IPPROTO_IPV6, IPV6_HDRINCL, int{1}, "setsockopt IPV6_HDRINCL");
  return fd;
}

void send_raw(int raw_fd, const Address& local, std::span<const std::byte> packet) {
  const auto [address, length] = Endpoint{local, 0}.to_sockaddr();
  sys::check("send by a raw socket", ::sendto(raw_fd, packet.data(), packet.size(), 0,
                                              reinterpret_cast<const sockaddr*>(&address), length));
}

std::array<std::byte, sizeof(tcphdr)> made_up_end(const RepairRequest& request) {
  tcphdr tcp{};
  tcp.doff = sizeof(tcp) / 4;
  tcp.ack = 1;
  tcp.fin = request.fin != 0;
  tcp.seq = htonl(request.seq);
  tcp.ack_seq = htonl(request.ack);
  tcp.window = htons(request.window);
  // No timestamp: what the peer's clock shows is not known, and one that is too old would be dropped.
  return std::bit_cast<std::array<std::byte, sizeof tcp>>(tcp);
}

std::array<std::byte, sizeof(tcphdr) + 12> made_up_clock(const Snapshot& snapshot) {
  constexpr std::size_t kSize = sizeof(tcphdr) + 12;  // with NOP NOP TIMESTAMPS
  tcphdr tcp{};
  tcp.doff = kSize / 4;
  tcp.ack = 1;
  tcp.seq = htonl(snapshot.rcv_nxt.value);
  tcp.ack_seq = htonl(snapshot.snd_una.value);
  const unsigned scale = snapshot.wscale ? snapshot.wscale->snd : 0;
  tcp.window = htons(static_cast<std::uint16_t>(std::min(snapshot.snd_wnd >> scale, 0xffffU)));
  const Timestamps clock = snapshot.timestamps.value_or(Timestamps{});
  const std::array<std::uint32_t, 3> option{htonl(0x0101080a), htonl(clock.ts_recent.value_or(0)),
                                            htonl(clock.tsval_now)};
  std::array<std::byte, kSize> segment{};
  std::memcpy(segment.data(), &tcp, sizeof tcp);
  std::memcpy(segment.data() + sizeof tcp, option.data(), sizeof option);
  return segment;
}

}  // namespace conn

Deliver raw_delivery(const Endpoint& local) {
  const auto fd = std::make_shared<UniqueFd>(conn::open_raw_socket(local.address.is_ipv4()));
  return [fd, to = local.address](std::span<const std::byte> packet) {
    conn::send_raw(fd->get(), to, packet);
  };
}

}  // namespace tcpmig
