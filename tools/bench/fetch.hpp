// SPDX-License-Identifier: MIT
#pragma once
#include <chrono>
#include <string>

#include "sys/address.hpp"

/// One request, one connection, one thing at a time: as wget does it, without its start.
namespace tcpmig::bench {

class ClientPorts;

struct Fetched {
  std::chrono::nanoseconds took{};  ///< connect() to the last byte
  std::size_t bytes = 0;            ///< of the body
};

/// In this thread's network namespace. Throws when the answer is not 200, or not complete within ten seconds.
Fetched fetch(const sys::Endpoint& from, const std::string& request, ClientPorts& ports);

/// "GET .. Connection: close".
std::string closing_request(const std::string& path);

}  // namespace tcpmig::bench
