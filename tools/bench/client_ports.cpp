// SPDX-License-Identifier: MIT
#include "client_ports.hpp"

#include <sys/socket.h>

#include <cerrno>
#include <stdexcept>

#include "sys/check.hpp"
#include "sys/netlink.hpp"
#include "sys/netns.hpp"

namespace tcpmig::bench {
namespace {

constexpr std::uint32_t kFirst = 10'000, kPorts = 55'000;
constexpr int kAttempts = 1'000;  // one that is still open, of the round before

}  // namespace

ClientPorts::ClientPorts(const lab::Lab& lab, const std::string& node, unsigned addresses) {
  const sys::EnterNetns inside(lab.node(node).netns);
  sys::Netlink netlink;
  const auto link = netlink.find_link("eth0");
  if (!link) throw std::runtime_error("eth0 of " + node + " has gone");
  for (unsigned i = 0; i < addresses; ++i) {
    const auto address = sys::Address::parse("10.0.1." + std::to_string(201 + i)).value();
    netlink.add_address(link->index, {address, 24});
    addresses_.push_back({address, 0});
  }
}

sys::Endpoint ClientPorts::next() {
  const std::uint32_t number = used_++;
  sys::Endpoint from = addresses_[number % addresses_.size()];
  from.port = static_cast<std::uint16_t>(
      kFirst + number / static_cast<std::uint32_t>(addresses_.size()) % kPorts);
  return from;
}

void ClientPorts::bind_next(int fd) {
  for (int attempts = 0; attempts < kAttempts; ++attempts) {
    const sys::Endpoint from = next();
    const auto [address, length] = from.to_sockaddr();
    if (::bind(fd, reinterpret_cast<const sockaddr*>(&address), length) == 0) return;
    if (errno != EADDRINUSE) sys::check("bind " + from.str(), -1);
  }
  throw std::runtime_error("the client has no free port");
}

}  // namespace tcpmig::bench
