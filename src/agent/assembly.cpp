// SPDX-License-Identifier: MIT
#include "agent/assembly.hpp"

#include <arpa/inet.h>

#include <algorithm>
#include <utility>

namespace tcpmig::agent {
namespace {

Bytes join(const std::vector<std::optional<Bytes>>& parts, std::size_t length) {
  Bytes whole;
  whole.reserve(length);
  for (const auto& part : parts) whole.insert(whole.end(), part->begin(), part->end());
  return whole;
}

}  // namespace

/// What is announced, and the places for it, which an empty transfer of thousands of parts takes as well.
std::size_t Assembly::cost_of(const abi::wire_header& header) {
  return ntohl(header.total_length) + ntohs(header.parts) * sizeof(std::optional<Bytes>);
}

bool Assembly::is_full(const abi::wire_header& header) const {
  return transfers_.size() >= kMost || announced_ + cost_of(header) > kMostBytes;
}

void Assembly::erase(FlowMap<Transfer>::iterator transfer) {
  announced_ -= transfer->second.cost;
  transfers_.erase(transfer);
}

Assembly::Transfer* Assembly::find_or_make(const abi::flow_key& flow,
                                           const abi::wire_header& header, TimePoint now) {
  const control::Generation generation = ntohl(header.generation);
  auto found = transfers_.find(flow);
  if (found != transfers_.end() && found->second.generation != generation) {
    if (!control::newer(generation, found->second.generation)) return nullptr;
    erase(found);
    found = transfers_.end();
  }
  if (found != transfers_.end()) return &found->second;
  if (is_full(header)) return nullptr;
  Transfer& made = transfers_[flow];
  made.generation = generation;
  made.total_length = ntohl(header.total_length);
  made.cost = cost_of(header);
  announced_ += made.cost;
  made.whole = (header.flags & abi::WIRE_FLAG_WHOLE) != 0;
  made.parts.resize(ntohs(header.parts));
  made.deadline = now + deadline_;
  return &made;
}

/// False: it contradicts the other parts. A part that is there already is left as it is.
bool Assembly::put(Transfer& transfer, const control::Incoming& message) {
  const abi::wire_header& header = message.header;
  const std::size_t number = ntohs(header.part);
  if (ntohs(header.parts) != transfer.parts.size() || number >= transfer.parts.size() ||
      ntohl(header.total_length) != transfer.total_length ||
      ((header.flags & abi::WIRE_FLAG_WHOLE) != 0) != transfer.whole ||
      (header.type == abi::WIRE_COMMIT) != (number + 1 == transfer.parts.size()))
    return false;
  if (transfer.parts[number]) return true;
  if (transfer.bytes + message.payload.size() > transfer.total_length) return false;
  transfer.parts[number].emplace(message.payload.begin(), message.payload.end());
  transfer.bytes += message.payload.size();
  ++transfer.present;
  return true;
}

std::expected<std::optional<Arrival>, Assembly::Problem> Assembly::add(
    const abi::flow_key& flow, const control::Incoming& message, const sys::Endpoint& from,
    TimePoint now) {
  const bool full = is_full(message.header) && !transfers_.contains(flow);
  Transfer* transfer = find_or_make(flow, message.header, now);
  if (transfer == nullptr)
    return std::unexpected(full ? Problem::kTooMany : Problem::kContradiction);
  if (!put(*transfer, message)) return std::unexpected(Problem::kContradiction);
  if (message.header.type == abi::WIRE_COMMIT) {
    transfer->commit = message.header;
    transfer->from = from;
    transfer->committed = now;
    transfer->asked = false;
  }
  if (!transfer->commit || transfer->present < transfer->parts.size()) return std::nullopt;
  const auto whole = transfers_.find(flow);
  Transfer done = std::move(whole->second);
  erase(whole);
  if (done.bytes != done.total_length) return std::unexpected(Problem::kContradiction);
  return Arrival{flow, *done.commit, join(done.parts, done.total_length), done.from,
                 done.committed};
}

Assembly::Gap Assembly::gap_of(const Transfer& transfer) {
  Gap gap{*transfer.commit, transfer.from, {}};
  for (std::size_t i = 0; i < transfer.parts.size(); ++i)
    if (!transfer.parts[i] && gap.missing.size() < kMostAsked)
      gap.missing.push_back(static_cast<std::uint16_t>(i));
  return gap;
}

std::vector<Assembly::Gap> Assembly::gaps(TimePoint now) {
  std::vector<Gap> result;
  for (auto& [flow, transfer] : transfers_) {
    if (!transfer.commit || now < transfer.committed + kAskDelay) continue;
    const bool came = transfer.present > transfer.present_when_asked;
    if (transfer.asked && (!came || now < transfer.asked_at + kAskDelay)) continue;
    transfer.asked = true;
    transfer.asked_at = now;
    transfer.present_when_asked = transfer.present;
    result.push_back(gap_of(transfer));
  }
  return result;
}

std::vector<Assembly::Gap> Assembly::expire(TimePoint now) {
  std::vector<Gap> result;
  for (auto i = transfers_.begin(); i != transfers_.end();) {
    if (now < i->second.deadline) {
      ++i;
      continue;
    }
    if (i->second.commit) result.push_back(gap_of(i->second));
    erase(i++);
  }
  return result;
}

void Assembly::drop(const abi::flow_key& flow, control::Generation generation) {
  const auto found = transfers_.find(flow);
  if (found != transfers_.end() && !control::newer(found->second.generation, generation))
    erase(found);
}

}  // namespace tcpmig::agent
