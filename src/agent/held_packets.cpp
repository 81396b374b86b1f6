// SPDX-License-Identifier: MIT
#include "agent/held_packets.hpp"

#include <algorithm>
#include <utility>

namespace tcpmig::agent {

bool HeldPackets::add(const abi::flow_key& flow, Bytes packet, TimePoint now) {
  const auto found = flows_.find(flow);
  const std::size_t held = found == flows_.end() ? 0 : found->second.packets.size();
  if (held >= limits_.packets_per_flow || bytes_ + packet.size() > limits_.bytes) return false;
  Flow& entry = found == flows_.end() ? flows_[flow] : found->second;
  if (entry.packets.empty()) {
    entry.number = ++numbers_;
    deadlines_.push_back({now + limits_.time, flow, entry.number});
  }
  bytes_ += packet.size();
  ++packets_;
  entry.packets.push_back(std::move(packet));
  return true;
}

bool HeldPackets::has_share(const abi::flow_key& flow, const Bytes& packet) const {
  constexpr std::size_t kShare = 4;
  const auto found = flows_.find(flow);
  const std::size_t held = found == flows_.end() ? 0 : found->second.packets.size();
  return held < std::max<std::size_t>(limits_.packets_per_flow / kShare, 1) &&
         bytes_ + packet.size() <= limits_.bytes / kShare;
}

std::vector<Bytes> HeldPackets::take(const abi::flow_key& flow) {
  auto node = flows_.extract(flow);
  if (node.empty()) return {};
  std::vector<Bytes> packets = std::move(node.mapped().packets);
  packets_ -= packets.size();
  for (const Bytes& packet : packets) bytes_ -= packet.size();
  return packets;
}

std::vector<HeldPackets::Expired> HeldPackets::expire(TimePoint now) {
  std::vector<Expired> expired;
  for (; !deadlines_.empty() && deadlines_.front().when <= now; deadlines_.pop_front()) {
    const Deadline& deadline = deadlines_.front();
    const auto found = flows_.find(deadline.flow);
    if (found != flows_.end() && found->second.number == deadline.number)
      expired.push_back({deadline.flow, take(deadline.flow)});
  }
  return expired;
}

}  // namespace tcpmig::agent
