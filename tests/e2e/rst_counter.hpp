// SPDX-License-Identifier: MIT
#pragma once
#include <cstdint>
#include <string>

#include "sys/unique_fd.hpp"

namespace tcpmig::e2e {

/// Counts the TCP RSTs that arrive at a node's eth0, from the moment it is made (a packet socket
/// with a filter; both families).
class RstCounter {
 public:
  explicit RstCounter(const std::string& netns);
  /// So far. Reads what waits.
  std::uint64_t count();

 private:
  sys::UniqueFd fd_;
  std::uint64_t count_ = 0;
};

}  // namespace tcpmig::e2e
