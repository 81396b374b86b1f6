// SPDX-License-Identifier: MIT
#include "control/captures.hpp"

#include <utility>

#include "conn/append_segment.hpp"
#include "conn/segment.hpp"
#include "control/client_segments.hpp"

namespace tcpmig::control {

Captures::Outcome Captures::add(const Snapshot& frozen, CapturedSegment segment) {
  if (!conn::is_intact(frozen.peer, frozen.local, segment.bytes)) return Outcome::kDamaged;
  bytes_ += segment.bytes.size();
  if (segments_.size() >= most_segments_ || bytes_ > most_bytes_) return Outcome::kFull;
  segments_.push_back(std::move(segment));
  return Outcome::kKept;
}

std::vector<std::vector<std::byte>> Captures::take_from(Seq end, std::size_t room) {
  std::vector<std::vector<std::byte>> result;
  for (const CapturedSegment& captured : segments_) {
    if (conn::adds_nothing(end, captured.bytes)) continue;
    for (auto& piece : split_segment(captured.bytes, room)) result.push_back(std::move(piece));
  }
  segments_.clear();
  bytes_ = 0;
  return result;
}

}  // namespace tcpmig::control
