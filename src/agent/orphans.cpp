// SPDX-License-Identifier: MIT
#include "agent/orphans.hpp"

namespace tcpmig::agent {

bool Orphans::overdue(const abi::flow_key& flow, std::uint32_t seq, TimePoint now) {
  const auto found = by_flow_.find(flow);
  if (found != by_flow_.end()) {
    watched_.splice(watched_.begin(), watched_, found->second);
    if (found->second->seq == seq) return now - found->second->first > patience_;
    found->second->seq = seq;
    found->second->first = now;
    return false;
  }
  if (watched_.size() >= kMost) forget(watched_.back().flow);
  watched_.push_front({flow, seq, now});
  by_flow_.emplace(flow, watched_.begin());
  return false;
}

void Orphans::forget(const abi::flow_key& flow) {
  const auto found = by_flow_.find(flow);
  if (found == by_flow_.end()) return;
  watched_.erase(found->second);
  by_flow_.erase(found);
}

}  // namespace tcpmig::agent
