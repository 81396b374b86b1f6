// SPDX-License-Identifier: MIT
#pragma once
#include <chrono>
#include <cstdint>
#include <deque>
#include <vector>

#include "config/config.hpp"
#include "shared/switch_maps.h"
#include "switch/caught.hpp"
#include "switch/node_port.hpp"
#include "switch/resets.hpp"

namespace tcpmig::steering {

class Programs;

/// Never silence for ever (invariant 8): ends the connections of clients that wait for a node which will never answer them. The
/// program `reap` takes the connection from the node, in one step, then the client gets its RST.
///
///  - A flow caught in a transfer: given to a server that has not said a word, for longer than a dispatcher that lives takes to
///    resolve any transfer. Silence alone proves nothing (a server that thinks for long, and whose first ACK was lost): so the owner's
///    agent is asked, by ABORT. It answers RENEW (the socket is there: that counts as the owner's first word) or GONE (it was never
///    opened, and never will be). One that does not answer at all is dead.
///  - Clients that a dispatcher has left behind: orphaned().
class Reaper {
 public:
  using Clock = std::chrono::steady_clock;

  Reaper(const config::Config& config, const control::Secret& secret, const Programs& programs);

  /// To be called often (kTick); does a bounded piece of work.
  void tick(Clock::time_point now);
  static constexpr std::chrono::milliseconds kTick{100};

  /// `dispatcher` is dead: the clients bound to it that were last heard of before `before_ns` and whose connection nobody else
  /// owns, and those whose flow it had taken back before. The latest first: those are the ones most likely to wait.
  void orphaned(config::NodeId dispatcher, std::uint64_t before_ns, abi::switch_counter counter);

 private:
  /// A flow whose owner is asked whether it has it.
  struct Asked {
    abi::flow_key key{};
    std::uint16_t service = 0;
    Question question;
  };
  void find_caught(Clock::time_point now);
  /// False: it is over with this one.
  bool ask(Asked& asked);
  bool reap(const abi::reap_request& request);
  void reap_orphans();

  const config::Config& config_;
  const Programs& programs_;
  NodePort port_;
  Resets resets_;
  std::vector<Asked> asked_;
  std::deque<abi::reap_request> orphans_;
  Clock::time_point next_look_;
};

}  // namespace tcpmig::steering
