// SPDX-License-Identifier: MIT
#include "switch/node_port.hpp"

#include <arpa/inet.h>
#include <sys/socket.h>

#include <cerrno>

namespace tcpmig::steering {
namespace {

/// None where the machine has not got the family.
sys::UniqueFd datagram_socket(int family) {
  return sys::UniqueFd(::socket(family, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
}

}  // namespace

NodePort::NodePort(const config::Config& config, const control::Secret& secret, std::uint8_t lane)
    : config_(config),
      sealer_(secret, 0, lane),
      socket4_(datagram_socket(AF_INET)),
      socket6_(datagram_socket(AF_INET6)) {}

bool NodePort::send(control::Outgoing message) {
  const bool v4 = message.header.family == abi::FAMILY_IPV4;
  const config::Node* node = config_.find_node(config::NodeId{ntohs(message.header.target)});
  const sys::Address address = node == nullptr ? sys::Address()
                               : v4            ? node->address4
                                               : node->address6;
  if (!address.is_set()) {
    errno = ENOENT;
    return false;
  }
  sealer_.seal(message);
  const auto [to, length] = sys::Endpoint{address, config_.control_port}.to_sockaddr();
  return ::sendto((v4 ? socket4_ : socket6_).get(), &message.header, sizeof message.header,
                  MSG_NOSIGNAL, reinterpret_cast<const sockaddr*>(&to), length) >= 0;
}

}  // namespace tcpmig::steering
