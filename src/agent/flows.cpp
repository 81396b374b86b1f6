// SPDX-License-Identifier: MIT
#include "agent/flows.hpp"

#include <arpa/inet.h>
#include <linux/bpf.h>  // the TCP states

#include <algorithm>

namespace tcpmig::agent {
namespace {

using std::chrono::milliseconds;

constexpr milliseconds kCensusPause{100};  // LOAD is as fresh as this
constexpr int kCensusShare = 20;           // a census takes at most 1/20 of the time
constexpr milliseconds kGonePause{50};
constexpr std::size_t kGoneBatch = 100;  // 2000 a second: the switch sees most ends itself
constexpr std::size_t kSweepBatch = 2000;

/// Alive for the switch: all but TIME_WAIT, CLOSE and what is not connected.
constexpr std::uint32_t kLiveStates = 1U << BPF_TCP_ESTABLISHED | 1U << BPF_TCP_SYN_RECV |
                                      1U << BPF_TCP_FIN_WAIT1 | 1U << BPF_TCP_FIN_WAIT2 |
                                      1U << BPF_TCP_CLOSE_WAIT | 1U << BPF_TCP_LAST_ACK |
                                      1U << BPF_TCP_CLOSING;

abi::flow_key flow_of_socket(const sys::SocketInfo& socket) {
  abi::flow_key flow{};
  flow.client = socket.peer.address.raw();
  flow.vip = socket.local.address.raw();
  flow.client_port = htons(socket.peer.port);
  flow.family = socket.local.address.is_ipv4() ? abi::FAMILY_IPV4 : abi::FAMILY_IPV6;
  return flow;
}

}  // namespace

Flows::Flows(const config::Config& config, const config::Node& self, sys::SockDiag& diag,
             Tombstones& tombstones, Answers& answers, Counters& counters, TimePoint now)
    : config_(config),
      block4_(config::vpa4_block(config, self.id)),
      block6_(config::vpa6_block(config, self.id)),
      diag_(diag),
      tombstones_(tombstones),
      answers_(answers),
      counters_(counters),
      next_census_(now),
      next_gone_(now) {
  adopt(now);
}

void Flows::opened(const abi::flow_key& flow, const LiveFlow& live) {
  live_.insert_or_assign(flow, live);
}

void Flows::settled(const abi::flow_key& flow, control::Generation generation, TimePoint now) {
  retired_.push_back({flow, generation, now});
}

const LiveFlow* Flows::find(const abi::flow_key& flow) const {
  const auto found = live_.find(flow);
  return found == live_.end() ? nullptr : &found->second;
}

/// Whether their sockets live the next census tells.
void Flows::adopt(TimePoint now) {
  FlowMap<control::Generation> known;
  for (const Ended& ended : retired_) known[ended.flow] = ended.generation;
  tombstones_.for_each([&](const abi::flow_key& flow, const abi::tombstone& tombstone) {
    const auto live = live_.find(flow);
    if (live != live_.end() && live->second.generation == tombstone.generation) return;
    const auto retired = known.find(flow);
    if (retired != known.end() && retired->second == tombstone.generation) return;
    if (tombstone.state == abi::TOMB_CONFIRMED || tombstone.state == abi::TOMB_OPENING)
      opened(flow, {.generation = tombstone.generation,
                    .snd_nxt = tombstone.snd_nxt,
                    .target_port = tombstone.target_port,
                    .census = 0,
                    .unsettled = tombstone.state == abi::TOMB_OPENING,
                    .opened = now,
                    .renewed = {}});
    else
      settled(flow, tombstone.generation, now);
  });
}

void Flows::retire(FlowMap<LiveFlow>::iterator flow, TimePoint now) {
  const Ended ended{flow->first, flow->second.generation, now};
  if (flow->second.unsettled)
    tombstones_.settle(ended.flow, ended.generation, abi::TOMB_REFUSED, abi::REASON_ABORTED);
  live_.erase(flow);
  ended_.push_back(ended);
  retired_.push_back(ended);
}

void Flows::stray_syn(const abi::flow_key& flow, TimePoint now) {
  ++counters_.stray_syn;
  const auto tombstone = tombstones_.find(flow);
  if (!tombstone || tombstone->state == abi::TOMB_OPENING) return;
  const auto socket = diag_.find(local_of(flow, tombstone->target_port), client_of(flow));
  // A SYN finds TIME_WAIT too: the connection has ended, the switch may give its successor to a dispatcher.
  if (socket && socket->state != BPF_TCP_TIME_WAIT) return;
  if (const auto live = live_.find(flow); live != live_.end()) {
    retire(live, now);
    ended_.pop_back();
  }
  answers_.gone(flow, tombstone->generation);
}

/// Its socket lives. What a former run had not confirmed, and nobody has asked about in time, is confirmed now.
void Flows::seen(const abi::flow_key& flow, LiveFlow& live, TimePoint now) {
  live.census = census_;
  if (live.unsettled && now - live.opened > 2 * config_.timeouts.transfer) {
    tombstones_.settle(flow, live.generation, abi::TOMB_CONFIRMED);
    live.unsettled = false;
  }
  if (now - live.renewed < config_.timeouts.idle / 3) return;
  // a fresh COMMIT has started the lease; an adopted flow has renewed == the epoch and is renewed at once
  live.renewed = now;
  answers_.renew(flow, live.generation);
}

void Flows::take_census(TimePoint now) {
  if (!live_.empty()) {
    ++census_;
    diag_.for_each(kLiveStates, [&](const sys::SocketInfo& socket) {
      if (!block4_.contains(socket.local.address) && !block6_.contains(socket.local.address))
        return;
      const auto found = live_.find(flow_of_socket(socket));
      if (found == live_.end()) return;
      seen(found->first, found->second, now);
    });
    for (auto i = live_.begin(); i != live_.end();) {
      const auto flow = i++;
      if (flow->second.census != census_) retire(flow, now);
    }
  }
  const auto took = std::chrono::duration_cast<milliseconds>(Clock::now() - now);
  next_census_ = now + std::clamp(kCensusShare * took, kCensusPause,
                                  std::max(kCensusPause, config_.timeouts.scan));
}

void Flows::tell_gone() {
  for (std::size_t i = 0; i < kGoneBatch && !ended_.empty(); ++i) {
    const Ended ended = ended_.front();
    ended_.pop_front();
    const LiveFlow* successor = find(ended.flow);
    if (successor == nullptr || successor->generation == ended.generation)
      answers_.gone(ended.flow, ended.generation);
  }
}

/// A tombstone must outlive every repeat of its COMMIT. Beyond that it serves stray packets (RST instead of silence), which
/// is worth less than room for new connections.
milliseconds Flows::retention() const {
  const config::Timeouts& timeouts = config_.timeouts;
  const milliseconds least = 2 * timeouts.transfer + timeouts.hold;
  const bool scarce = tombstones() > config_.limits.tombstones / 4 * 3;
  return scarce ? std::min(least, timeouts.tombstone) : std::max(least, timeouts.tombstone);
}

void Flows::sweep(TimePoint now) {
  const milliseconds keep = retention();
  for (std::size_t i = 0; i < kSweepBatch && !retired_.empty(); ++i) {
    const Ended ended = retired_.front();
    if (now - ended.when < keep) return;
    retired_.pop_front();
    const LiveFlow* successor = find(ended.flow);
    if (successor != nullptr && successor->generation == ended.generation) continue;
    if (tombstones_.sweep(ended.flow, ended.generation)) ++counters_.swept;
  }
}

TimePoint Flows::due() const {
  TimePoint first = next_census_;
  if (!ended_.empty()) first = std::min(first, next_gone_);
  return first;
}

void Flows::run(TimePoint now) {
  if (now >= next_census_) take_census(now);
  if (now >= next_gone_ && !ended_.empty()) {
    tell_gone();
    next_gone_ = now + kGonePause;
  }
  sweep(now);
}

}  // namespace tcpmig::agent
