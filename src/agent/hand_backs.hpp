// SPDX-License-Identifier: MIT
#pragma once
#include <chrono>
#include <cstddef>
#include <span>

#include "agent/answers.hpp"
#include "agent/flow.hpp"

namespace tcpmig::agent {

/// Transfers that were refused or aborted here, for a short time: until the flow has another owner its packets still come. They go to the
/// one who wanted to move it, which has the connection, as if they had come there while it was locked.
class HandBacks {
 public:
  static constexpr std::size_t kMost = 4096;
  HandBacks(Answers& answers, Counters& counters, std::chrono::milliseconds time)
      : answers_(answers), counters_(counters), time_(time) {}

  /// `question`: the COMMIT or ABORT that was answered. What the switch asks is no transfer of its own.
  void refused(const abi::flow_key& flow, const abi::wire_header& question,
               const sys::Endpoint& from, TimePoint now);
  /// A TCP segment of the client. `port`: of the server. False: nobody wants it (any more).
  bool give(const abi::flow_key& flow, std::uint16_t port, std::span<const std::byte> segment,
            TimePoint now);

 private:
  struct Former {
    abi::wire_header question{};
    sys::Endpoint from;
    TimePoint until;
  };
  void sweep(TimePoint now);

  Answers& answers_;
  Counters& counters_;
  std::chrono::milliseconds time_;
  FlowMap<Former> formers_;
};

}  // namespace tcpmig::agent
