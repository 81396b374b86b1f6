// SPDX-License-Identifier: MIT
#pragma once
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <unordered_map>
#include <vector>

#include <tcpmig/freeze.hpp>

#include "agent/counters.hpp"

namespace tcpmig::agent {

/// Connections that are restored, in repair, and wait for their programs: what the client sends meanwhile the kernel must not acknowledge
/// (nobody may ever take the connection), and its RST or its last packet will not come again. So a filter copies it, and it is given to the
/// kernel when the connection lives.
class OfferLock {
 public:
  /// `most`: packets of one connection; beyond that the client sends again, and it is counted.
  OfferLock(std::size_t most, Counters& counters) : most_(most), counters_(counters) {}

  /// Throws std::system_error. The first call loads the program; without one nothing is copied.
  void put_on(int fd);
  void take_off(int fd);
  /// After take_off(): what has come while it was on, oldest first.
  std::vector<CapturedSegment> take(int fd);
  /// The connection ends with the lock on.
  void forget(int fd);

 private:
  void consume();

  std::size_t most_;
  Counters& counters_;
  std::unique_ptr<FreezeKit> kit_;
  std::unordered_map<std::uint64_t, std::vector<CapturedSegment>> captured_;  ///< by socket cookie
};

}  // namespace tcpmig::agent
