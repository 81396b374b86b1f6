// SPDX-License-Identifier: MIT
#include "dispatcher/accept_queue.hpp"

#include <algorithm>

namespace tcpmig::dispatcher {

std::optional<int> AcceptQueue::taken(std::uint64_t now_ns) {
  if (taken_++ == 0) since_ = now_ns;
  const std::uint64_t passed = now_ns - since_;
  if (passed < kInterval) return std::nullopt;
  const std::uint64_t pace = static_cast<std::uint64_t>(taken_) * kInterval / passed;
  since_ = now_ns;
  taken_ = 1;
  return set(std::max(static_cast<int>(pace), kShortest));
}

std::optional<int> AcceptQueue::emptied() {
  taken_ = 0;
  return set(kLong);
}

std::optional<int> AcceptQueue::set(int backlog) {
  if (backlog == backlog_) return std::nullopt;
  backlog_ = backlog;
  return backlog;
}

}  // namespace tcpmig::dispatcher
