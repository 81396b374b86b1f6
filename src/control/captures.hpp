// SPDX-License-Identifier: MIT
#pragma once
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include <tcpmig/freeze.hpp>

namespace tcpmig::control {

/// What the lock of a frozen connection has captured while it is being moved. A client can send more than its window while it waits: what
/// is kept has a limit, the rest it sends again.
class Captures {
 public:
  Captures(std::size_t most_segments, std::size_t most_bytes)
      : most_segments_(most_segments), most_bytes_(most_bytes) {}

  enum class Outcome : std::uint8_t { kKept, kDamaged, kFull };
  Outcome add(const Snapshot& frozen, CapturedSegment segment);
  /// What its new owner, who has all below `end`, does not have yet, in segments of at most `room` bytes; nothing is kept afterwards.
  std::vector<std::vector<std::byte>> take_from(Seq end, std::size_t room);
  [[nodiscard]] std::span<const CapturedSegment> all() const noexcept { return segments_; }

 private:
  std::size_t most_segments_;
  std::size_t most_bytes_;
  std::vector<CapturedSegment> segments_;
  std::size_t bytes_ = 0;
};

}  // namespace tcpmig::control
