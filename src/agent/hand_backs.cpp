// SPDX-License-Identifier: MIT
#include "agent/hand_backs.hpp"

#include "conn/segment.hpp"
#include "control/client_segments.hpp"
#include "control/transfer_messages.hpp"

namespace tcpmig::agent {

void HandBacks::refused(const abi::flow_key& flow, const abi::wire_header& question,
                        const sys::Endpoint& from, TimePoint now) {
  if (question.sender == 0) return;
  if (formers_.size() >= kMost) sweep(now);
  if (formers_.size() < kMost) formers_.insert_or_assign(flow, Former{question, from, now + time_});
}

bool HandBacks::give(const abi::flow_key& flow, std::uint16_t port,
                     std::span<const std::byte> segment, TimePoint now) {
  const auto former = formers_.find(flow);
  if (former == formers_.end()) return false;
  if (now >= former->second.until) {
    formers_.erase(former);
    return false;
  }
  const sys::Endpoint client = client_of(flow);
  if (!conn::is_intact(client, local_of(flow, port), segment)) return false;
  for (const auto& piece : control::split_segment(segment, control::segment_room(client)))
    answers_.handed_back(former->second.question, former->second.from, piece);
  ++counters_.handed_back;
  return true;
}

void HandBacks::sweep(TimePoint now) {
  std::erase_if(formers_, [&](const auto& entry) { return now >= entry.second.until; });
}

}  // namespace tcpmig::agent
