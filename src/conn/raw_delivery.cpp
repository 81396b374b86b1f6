// SPDX-License-Identifier: MIT
#include <netinet/in.h>
#include <sys/socket.h>

#include <memory>

#include <tcpmig/resume.hpp>

#include "conn/socket_option.hpp"
#include "sys/check.hpp"

namespace tcpmig {

Deliver raw_delivery(const Endpoint& local) {
  const bool ipv4 = local.address.is_ipv4();
  // IPPROTO_RAW: the IP header is ours (raw(7)); IPv6 wants to be told
  const auto fd = std::make_shared<UniqueFd>(
      sys::check("raw socket (needs CAP_NET_RAW)",
                 ::socket(ipv4 ? AF_INET : AF_INET6, SOCK_RAW | SOCK_CLOEXEC, IPPROTO_RAW)));
  if (!ipv4)
    conn::set_option(fd->get(), IPPROTO_IPV6, IPV6_HDRINCL, int{1}, "setsockopt IPV6_HDRINCL");
  return [fd, to = Endpoint{local.address, 0}](std::span<const std::byte> packet) {
    const auto [address, length] = to.to_sockaddr();
    sys::check("send by a raw socket",
               ::sendto(fd->get(), packet.data(), packet.size(), 0,
                        reinterpret_cast<const sockaddr*>(&address), length));
  };
}

}  // namespace tcpmig
