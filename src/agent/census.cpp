// SPDX-License-Identifier: MIT
#include "agent/census.hpp"

#include <algorithm>
#include <utility>

#include "agent/guarded.hpp"

namespace tcpmig::agent {
namespace {

using std::chrono::milliseconds;

// A look takes some 2 us: a slice of 1 ms keeps no transfer waiting that one could notice.
constexpr std::size_t kSlice = 500;
constexpr milliseconds kSlicePause{20};
constexpr int kShare = 25;  // slices take at most 1/25 of the time
constexpr milliseconds kAfterFailure{100};

}  // namespace

void Census::add(const abi::flow_key& flow, control::Generation generation, TimePoint now,
                 TimePoint due) {
  queue_.push({due, {flow, generation, now}});
}

void Census::hasten(TimePoint now) {
  std::vector<Entry> all;
  all.reserve(queue_.size());
  for (; !queue_.empty(); queue_.pop()) all.push_back(queue_.top());
  for (Entry& entry : all) entry.due = std::min(entry.due, now);
  hastened_ = all.size();
  queue_ = Queue(std::greater<>{}, std::move(all));
  next_slice_ = now;
}

TimePoint Census::due() const {
  return queue_.empty() ? TimePoint::max() : std::max(queue_.top().due, next_slice_);
}

void Census::run(TimePoint now, const Look& look) {
  if (now < due()) return;
  for (std::size_t i = 0; i < kSlice && !queue_.empty() && queue_.top().due <= now; ++i) {
    const Entry entry = queue_.top();
    queue_.pop();
    if (hastened_ > 0) --hastened_;
    std::optional<milliseconds> pause = kAfterFailure;
    guarded("look at a flow", [&] { pause = look(entry.subject, now); });
    if (pause) queue_.push({now + std::max(*pause, milliseconds(1)), entry.subject});
  }
  const auto took = Clock::now() - now;
  next_slice_ =
      now + (hastened_ > 0 ? 2 * took : std::max<Clock::duration>(kSlicePause, kShare * took));
}

}  // namespace tcpmig::agent
