// SPDX-License-Identifier: MIT
#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "lab/lab.hpp"

namespace tcpmig::bench {

/// Client addresses and ports for very many short connections: each pair is used once in a run of two million, so that no connection meets
/// what a server remembers of an earlier one (TIME_WAIT, a minute): as with thousands of clients, each with an address of its own.
class ClientPorts {
 public:
  /// Gives the node so many more addresses, in the clients' network.
  ClientPorts(const lab::Lab& lab, const std::string& node, unsigned addresses = 40);
  /// Binds a socket to the next address and port that are free.
  void bind_next(int fd);

 private:
  sys::Endpoint next();
  std::vector<sys::Endpoint> addresses_;
  std::uint32_t used_ = 0;
};

}  // namespace tcpmig::bench
