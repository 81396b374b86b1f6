// SPDX-License-Identifier: MIT
#pragma once
#include <cstddef>
#include <span>
#include <vector>

#include "config/config.hpp"

namespace tcpmig::relay {

/// A client that is relayed.
struct Client {
  sys::Endpoint client;
  sys::Endpoint service;        ///< where it connected to
  std::size_t head_length = 0;  ///< of its first request, with the blank line
};

/// What the server is sent first: `received`, all that the client has sent so far, and who that client is; the
/// connection that the server sees is the relay's.
///
/// kProxyV2: the PROXY protocol, version 2, before the first byte (HAProxy's proxy-protocol.txt).
/// kForwardedFor: X-Forwarded-For. A field in the first request would not be in the second, and a client could write it there itself. So
/// the first request says "Connection: close" and the server ends the connection after its answer; fields that the
/// client wrote stay before ours. A request to upgrade the protocol (RFC 9110, 7.8) keeps its Connection field.
std::vector<std::byte> opening(config::Announce announce, const Client& client,
                               std::span<const std::byte> received);

}  // namespace tcpmig::relay
