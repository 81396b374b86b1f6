// SPDX-License-Identifier: MIT
#pragma once
#include <arpa/inet.h>

#include <cerrno>
#include <system_error>

#include "agent/assembly.hpp"
#include "agent/openings.hpp"

/// What the parts of Handoffs share.
namespace tcpmig::agent {

inline Refusal as_refusal(const std::system_error& error, abi::wire_reason reason) {
  return {reason, static_cast<std::uint32_t>(error.code().value())};
}

/// What connect() says where nobody listens, and where too many wait.
inline Refusal unreachable(const std::system_error& error) {
  return as_refusal(
      error, error.code().value() == EAGAIN ? abi::REASON_BACKLOG_FULL : abi::REASON_NO_LISTENER);
}

inline std::uint16_t port_of(const Arrival& arrival) { return ntohs(arrival.commit.target_port); }

inline sys::Endpoint local_end(const Arrival& arrival) {
  return local_of(arrival.flow, port_of(arrival));
}

}  // namespace tcpmig::agent
