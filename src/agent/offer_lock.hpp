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
  /// What has come while it was on, oldest first.
  std::vector<CapturedSegment> take(int fd);
  /// Nobody wants that: it is counted.
  void forget(int fd);

  /// Readable when consume() has something to do; -1: not yet.
  [[nodiscard]] int events_fd() const noexcept { return kit_ ? kit_->captures_fd() : -1; }
  /// Soon: all connections share the room of what is captured.
  void consume();
  [[nodiscard]] std::size_t locked() const noexcept { return captured_.size(); }

 private:
  std::size_t most_;
  Counters& counters_;
  std::unique_ptr<FreezeKit> kit_;
  std::uint64_t lost_ = 0;  ///< of them, counted already
  std::unordered_map<std::uint64_t, std::vector<CapturedSegment>> captured_;  ///< by socket cookie
};

}  // namespace tcpmig::agent
