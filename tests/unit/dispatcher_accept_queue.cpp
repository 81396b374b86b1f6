// SPDX-License-Identifier: MIT
// How long the queue of a listener may become.
#include "dispatcher/accept_queue.hpp"

#include "catch.hpp"

using tcpmig::dispatcher::AcceptQueue;

namespace {

constexpr std::uint64_t kBegin = 5'000'000'000, kThousandth = AcceptQueue::kInterval / 1'000;

/// One connection after the other, `gap_ns` apart; what the queue said last.
std::optional<int> take(AcceptQueue& queue, std::uint64_t& now, unsigned connections,
                        std::uint64_t gap_ns) {
  std::optional<int> last;
  for (unsigned i = 0; i < connections; ++i, now += gap_ns)
    if (const auto said = queue.taken(now)) last = said;
  return last;
}

}  // namespace

TEST_CASE("accept queue: a crowd that is served within the interval changes nothing") {
  AcceptQueue queue;
  std::uint64_t now = kBegin;
  CHECK_FALSE(take(queue, now, 999, kThousandth));
  CHECK_FALSE(queue.emptied());
  now += 300 *
         AcceptQueue::
             kInterval;  // however long it was empty: the next one is the first of a new interval
  CHECK_FALSE(take(queue, now, 999, kThousandth));
  CHECK_FALSE(queue.emptied());
}

TEST_CASE("accept queue: one that stands is as short as what an interval brings") {
  AcceptQueue queue;
  std::uint64_t now = kBegin;
  CHECK(take(queue, now, 1'002, kThousandth) == 1'001);
  CHECK(take(queue, now, 1'000, 2 * kThousandth) == 501);  // it has become slower
  CHECK(queue.emptied() == AcceptQueue::kLong);
  CHECK_FALSE(queue.emptied());  // said once
}

TEST_CASE("accept queue: a loop that was held up takes its own pace, and never less than a few") {
  AcceptQueue queue;
  std::uint64_t now = kBegin;
  take(queue, now, 500, 0);
  now += 10 * AcceptQueue::kInterval;
  CHECK(queue.taken(now) == 50);  // of 501
  CHECK(queue.taken(now + 300 * AcceptQueue::kInterval) == AcceptQueue::kShortest);
}
