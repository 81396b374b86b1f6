// SPDX-License-Identifier: MIT
#pragma once
#include <cstdint>
#include <memory>
#include <vector>

#include "sys/address.hpp"

namespace tcpmig::sys {
class SockDiag;  // its header has a rival of <netinet/tcp.h>
}

namespace tcpmig::dispatcher {

/// Locked sockets of a dispatcher that was killed. The kernel has closed them with a FIN, but the lock
/// stays with them: no acknowledgement gets through, and neither does the SYN of a new connection with
/// the same four-tuple, for as long as the kernel repeats the FIN (minutes). A client that uses its
/// port again would hang.
class Leftovers {
 public:
  /// Takes note of what may be such a socket now: no process has it, and nothing but its FIN is
  /// outstanding. `blocks`: what this node's connections are addressed to; unset ones match nothing.
  explicit Leftovers(const std::vector<sys::Prefix>& blocks);
  ~Leftovers();
  Leftovers(const Leftovers&) = delete;
  Leftovers& operator=(const Leftovers&) = delete;
  /// Ends those of them whose FIN was repeated in vain by now: a client that has ended its connection
  /// in order is not disturbed. Each client hears RST, unless its connection has another owner (the
  /// switch sees to that). True: there are more, call it again in a while.
  bool sweep();

 private:
  struct Suspect {
    sys::Endpoint local, peer;
    std::uint64_t cookie = 0;
  };
  std::unique_ptr<sys::SockDiag> diag_;
  std::vector<Suspect> suspects_;
};

}  // namespace tcpmig::dispatcher
