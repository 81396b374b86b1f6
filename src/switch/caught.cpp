// SPDX-License-Identifier: MIT
#include "switch/caught.hpp"

#include "switch/sweep.hpp"

namespace tcpmig::steering {
namespace {

/// Times timeouts.transfer. The dispatcher waits for an answer, then for that to ABORT, then takes the flow back: each of
/// the three has one.
constexpr int kPatience = 4;
constexpr int kTimesAsked = 6;  // a quarter of timeouts.transfer apart

/// No dispatcher that lives is still busy with this transfer.
bool is_overdue(const abi::flow_value& flow, const config::Timeouts& timeouts,
                std::uint64_t now_ns) {
  return flow.committed_ns + nanoseconds(kPatience * timeouts.transfer) < now_ns;
}

}  // namespace

bool is_caught(const abi::flow_value& flow, const config::Timeouts& timeouts,
               std::uint64_t now_ns) {
  return !flow.owner.is.spoke && flow.owner.is.owner != 0 && is_overdue(flow, timeouts, now_ns);
}

Question::Step Question::step(const abi::flow_value* flow, const config::Timeouts& timeouts,
                              std::uint64_t now_ns) {
  if (flow == nullptr || flow->owner.word != owner_.word) return Step::kOver;
  // Looked at in the midst of a COMMIT it may have had a new word and an old time.
  if (!is_overdue(*flow, timeouts, now_ns)) return Step::kOver;
  if (is_closing(*flow)) return Step::kReap;
  if (now_ns < next_ns_) return Step::kWait;
  if (times_ >= kTimesAsked) return Step::kReap;
  ++times_;
  next_ns_ = now_ns + nanoseconds(timeouts.transfer / 4);
  return Step::kAsk;
}

bool is_left_behind(const abi::affinity_value& bound, config::NodeId dispatcher,
                    std::uint64_t before_ns) {
  return bound.dispatcher == dispatcher && bound.acked && !bound.moved &&
         bound.last_seen_ns < before_ns;
}

bool is_left_behind(const abi::flow_value& flow, config::NodeId dispatcher,
                    std::uint64_t before_ns) {
  return flow.owner.is.owner == dispatcher && flow.committed_ns < before_ns && !is_closing(flow);
}

}  // namespace tcpmig::steering
