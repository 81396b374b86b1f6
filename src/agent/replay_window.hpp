// SPDX-License-Identifier: MIT
#pragma once
#include <cstdint>
#include <map>
#include <utility>

#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wconversion"
#include "lib/replay.h"
#pragma GCC diagnostic pop

namespace tcpmig::agent {

/// Which message numbers of each (sender, lane) have been seen, as on the switch. Messages are idempotent anyway; this keeps a replay from
/// costing work.
class ReplayWindows {
 public:
  /// False: seen before, or too old to tell.
  bool accept(std::uint16_t sender, std::uint8_t lane, std::uint64_t number) {
    return abi::replay_accept(&windows_[{sender, lane}], number);
  }

 private:
  std::map<std::pair<std::uint16_t, std::uint8_t>, abi::replay_bits> windows_;
};

}  // namespace tcpmig::agent
