// SPDX-License-Identifier: MIT
#include "switch/resets.hpp"

#include <arpa/inet.h>
#include <linux/tcp.h>
#include <spdlog/spdlog.h>
#include <sys/socket.h>

#include <cerrno>
#include <cstring>
#include <span>

#include "conn/segment.hpp"
#include "sys/address.hpp"
#include "sys/check.hpp"

namespace tcpmig::steering {
namespace {

constexpr std::chrono::milliseconds kAgain{250};

/// IPPROTO_RAW: the IP header comes from us. No IPv6 where the machine has none.
sys::UniqueFd raw_socket(int family) {
  sys::UniqueFd fd(::socket(family, SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK, IPPROTO_RAW));
  if (!fd && errno != EAFNOSUPPORT) sys::check("raw socket", -1);
  return fd;
}

}  // namespace

Resets::Resets() : socket4_(raw_socket(AF_INET)), socket6_(raw_socket(AF_INET6)) {}

void Resets::send(const abi::flow_key& flow, std::uint32_t expected) {
  again_.push_back({flow, expected, Clock::now() + kAgain});
  emit(again_.back());
}

void Resets::again(Clock::time_point now) {
  for (; !again_.empty() && again_.front().due <= now; again_.pop_front()) emit(again_.front());
}

void Resets::emit(const Reset& reset) const {
  const sys::Endpoint vip{sys::Address(reset.flow.vip), ntohs(reset.flow.vip_port)};
  const sys::Endpoint client{sys::Address(reset.flow.client), ntohs(reset.flow.client_port)};
  tcphdr tcp{};
  tcp.seq = htonl(reset.expected);
  tcp.doff = sizeof tcp / 4;
  tcp.rst = 1;  // a RST needs no ACK once the handshake is over (RFC 9293, 3.10.7.4)
  const int fd = (client.address.is_ipv4() ? socket4_ : socket6_).get();
  const auto [to, length] = sys::Endpoint{client.address, 0}.to_sockaddr();
  conn::give_packets(
      vip, client, std::as_bytes(std::span(&tcp, 1)), [&](std::span<const std::byte> packet) {
        if (::sendto(fd, packet.data(), packet.size(), MSG_NOSIGNAL,
                     reinterpret_cast<const sockaddr*>(&to), length) < 0)
          spdlog::debug("RST to {} not sent: {}", client.str(), std::strerror(errno));
      });
}

}  // namespace tcpmig::steering
