// SPDX-License-Identifier: MIT
#include "agent/control_port.hpp"

#include <netinet/in.h>
#include <sys/socket.h>

#include <cerrno>
#include <stdexcept>

#include "agent/guarded.hpp"
#include "sys/check.hpp"
#include "sys/errors.hpp"

namespace tcpmig::agent {
namespace {

constexpr int kReceiveBuffer = 4 << 20;  // a burst of transfers of many parts
constexpr int kSendBuffer = 4 << 20;     // all flows are announced at once

template <typename Value>
void set_option(int fd, int level, int name, Value value, const char* what) {
  sys::check(what, ::setsockopt(fd, level, name, &value, sizeof value));
}

/// DF on everything: a datagram that does not fit the path shall be noticed, not fragmented.
void set_options(int fd, bool ipv4) {
  if (ipv4) {
    set_option(fd, IPPROTO_IP, IP_MTU_DISCOVER, IP_PMTUDISC_DO, "setsockopt IP_MTU_DISCOVER");
  } else {
    set_option(fd, IPPROTO_IPV6, IPV6_V6ONLY, 1, "setsockopt IPV6_V6ONLY");
    set_option(fd, IPPROTO_IPV6, IPV6_MTU_DISCOVER, IPV6_PMTUDISC_DO,
               "setsockopt IPV6_MTU_DISCOVER");
  }
  // needs CAP_NET_ADMIN; without it the ordinary limit stays
  if (::setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &kReceiveBuffer, sizeof kReceiveBuffer) < 0)
    set_option(fd, SOL_SOCKET, SO_RCVBUF, kReceiveBuffer, "setsockopt SO_RCVBUF");
  if (::setsockopt(fd, SOL_SOCKET, SO_SNDBUFFORCE, &kSendBuffer, sizeof kSendBuffer) < 0)
    set_option(fd, SOL_SOCKET, SO_SNDBUF, kSendBuffer, "setsockopt SO_SNDBUF");
}

sys::UniqueFd bind_to(const sys::Endpoint& own) {
  sys::UniqueFd fd(sys::check(
      "socket", ::socket(own.address.family(), SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0)));
  set_options(fd.get(), own.address.is_ipv4());
  const auto [address, length] = own.to_sockaddr();
  if (::bind(fd.get(), reinterpret_cast<const sockaddr*>(&address), length) == 0) return fd;
  if (errno == EADDRINUSE)
    throw std::runtime_error("UDP port " + own.str() +
                             " is in use by another program: stop it, or set control_port in "
                             "[cluster] on all nodes");
  if (errno == EADDRNOTAVAIL)
    throw sys::WrongSetup(own.address.str() +
                          " is not an address of this machine: correct address4/address6 of "
                          "this [[node]], or run this on the right node");
  throw std::system_error(errno, std::generic_category(), "bind " + own.str());
}

}  // namespace

ControlPort::ControlPort(const config::Config& config, const config::Node& self,
                         const control::Secret& secret, Counters& counters)
    : sealer_(secret, self.id, 0), counters_(counters) {
  if (self.address4.is_set()) ipv4_ = bind_to({self.address4, config.control_port});
  if (self.address6.is_set()) ipv6_ = bind_to({self.address6, config.control_port});
}

void ControlPort::send(control::Outgoing message, const sys::Endpoint& to) {
  const int fd = to.address.is_ipv4() ? ipv4_.get() : ipv6_.get();
  if (!to.address.is_set() || fd < 0) {
    ++counters_.send_failed;
    return;
  }
  sealer_.seal(message);
  auto [address, length] = to.to_sockaddr();
  std::array<iovec, 2> pieces{
      {{&message.header, sizeof message.header},
       {const_cast<std::byte*>(message.payload.data()), message.payload.size()}}};
  msghdr datagram{};
  datagram.msg_name = &address;
  datagram.msg_namelen = length;
  datagram.msg_iov = pieces.data();
  datagram.msg_iovlen = pieces.size();
  if (::sendmsg(fd, &datagram, MSG_DONTWAIT) < 0) ++counters_.send_failed;
}

bool ControlPort::receive(
    int fd, const std::function<void(std::span<const std::byte>, const sys::Endpoint&)>& take) {
  std::array<mmsghdr, kBatch> messages{};
  std::array<iovec, kBatch> pieces{};
  std::array<sockaddr_storage, kBatch> senders{};
  for (std::size_t i = 0; i < kBatch; ++i) {
    pieces[i] = {buffers_[i].data(), buffers_[i].size()};
    messages[i].msg_hdr.msg_iov = &pieces[i];
    messages[i].msg_hdr.msg_iovlen = 1;
    messages[i].msg_hdr.msg_name = &senders[i];
    messages[i].msg_hdr.msg_namelen = sizeof senders[i];
  }
  const int count = ::recvmmsg(fd, messages.data(), kBatch, MSG_DONTWAIT, nullptr);
  if (count < 0) return false;  // nothing there, or an ICMP error for something sent: not ours
  for (std::size_t i = 0; i < static_cast<std::size_t>(count); ++i)
    guarded("control datagram", [&] {
      take(std::span<const std::byte>(buffers_[i]).first(messages[i].msg_len),
           sys::Endpoint::from_sockaddr(senders[i]));
    });
  return static_cast<std::size_t>(count) == kBatch;
}

std::vector<int> ControlPort::descriptors() const {
  std::vector<int> result;
  for (const sys::UniqueFd* fd : {&ipv4_, &ipv6_})
    if (*fd) result.push_back(fd->get());
  return result;
}

}  // namespace tcpmig::agent
