// SPDX-License-Identifier: MIT
#pragma once
#include <chrono>
#include <cstdint>
#include <deque>

#include "shared/flow.h"
#include "sys/unique_fd.hpp"

namespace tcpmig::steering {

/// Ends clients' connections in the service's name, for nodes that cannot any more: RST segments with a VIP as their source, by raw
/// sockets (the VIP is routed to the switch, not local on it, and the kernel lets a raw sender choose its source). They leave
/// like any packet of this machine to the client: its steering programs look at what comes in, not at these.
class Resets {
 public:
  using Clock = std::chrono::steady_clock;

  /// Throws std::system_error where there may be no raw sockets.
  Resets();

  /// `expected`: the number that the client expects next, by its own latest acknowledgement. Only exactly that one is taken at
  /// once (RFC 5961, 3.2). Sent now, and once more a little later: a packet may be lost.
  void send(const abi::flow_key& flow, std::uint32_t expected);
  /// Sends what is due once more.
  void again(Clock::time_point now);

 private:
  struct Reset {
    abi::flow_key flow{};
    std::uint32_t expected = 0;
    Clock::time_point due;
  };
  void emit(const Reset& reset) const;

  sys::UniqueFd socket4_, socket6_;
  std::deque<Reset> again_;
};

}  // namespace tcpmig::steering
