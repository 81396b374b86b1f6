// SPDX-License-Identifier: MIT
#pragma once
#include <mutex>
#include <unordered_map>
#include <utility>
#include <vector>

#include "agent/departure.hpp"
#include "agent/departures.hpp"

namespace tcpmig::agent {

/// The lock program and its captures; and a thread that waits for grace periods.
struct Departures::Freezer {
  FreezeKit kit{{.use_dump_program = false, .cgroup_name = {}, .keep_window_small = false}};
  std::unordered_map<std::uint64_t, Departure*> by_cookie;
  control::GracePeriod grace;
  std::mutex mutex;
  /// Whose grace period has passed; under the mutex. The same flow may have come back and left again meanwhile.
  std::vector<std::pair<abi::flow_key, std::uint64_t>> settled;

  std::uint64_t lost = 0;  ///< captures, counted already

  void consume(Counters& counters) {
    if (!kit.has_lock()) return;
    kit.consume_captures([this](CapturedSegment segment) {
      const auto found = by_cookie.find(segment.cookie);
      if (found != by_cookie.end()) found->second->take_capture(std::move(segment));
    });
    const std::uint64_t now = kit.captures_lost();
    counters.captures_lost += now - std::exchange(lost, now);
  }
};

}  // namespace tcpmig::agent
