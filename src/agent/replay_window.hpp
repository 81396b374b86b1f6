// SPDX-License-Identifier: MIT
#pragma once
#include <bitset>
#include <cstdint>
#include <map>
#include <utility>

namespace tcpmig::agent {

/// Which message numbers of each (sender, lane) have been seen: a sliding window as on the switch (RFC 6479). Messages are idempotent
/// anyway; this keeps a replay from costing work.
class ReplayWindows {
 public:
  static constexpr std::uint64_t kSize = 512;

  /// False: seen before, or too old to tell.
  bool accept(std::uint16_t sender, std::uint8_t lane, std::uint64_t number) {
    Window& window = windows_[{sender, lane}];
    if (number > window.highest) {
      const std::uint64_t distance = number - window.highest;
      window.seen = distance < kSize ? window.seen << distance : std::bitset<kSize>{};
      window.highest = number;
    }
    const std::uint64_t age = window.highest - number;
    if (age >= kSize || window.seen[age]) return false;
    window.seen[age] = true;
    return true;
  }

 private:
  struct Window {
    std::uint64_t highest = 0;
    std::bitset<kSize> seen;
  };
  std::map<std::pair<std::uint16_t, std::uint8_t>, Window> windows_;
};

}  // namespace tcpmig::agent
