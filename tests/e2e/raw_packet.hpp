// SPDX-License-Identifier: MIT
#pragma once
#include <netinet/tcp.h>

#include <string>

#include "e2e/support.hpp"

namespace tcpmig::e2e {

/// Sends packets as only root can: with any source, from inside a node.
class RawSocket {
 public:
  RawSocket(const TestLab& lab, const std::string& node, bool ipv6);
  /// Fills in the checksum.
  void send_tcp(const sys::Address& from, const sys::Address& to, tcphdr header) const;
  void send_udp(const sys::Endpoint& from, const sys::Endpoint& to,
                const std::string& payload) const;

 private:
  void send(const sys::Address& from, const sys::Address& to, std::uint8_t protocol,
            const std::string& segment) const;
  sys::UniqueFd fd_;
};

}  // namespace tcpmig::e2e
