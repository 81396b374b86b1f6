// SPDX-License-Identifier: MIT
#include "agent/flows.hpp"

#include <linux/bpf.h>  // the TCP states

#include <algorithm>

#include "agent/guarded.hpp"

namespace tcpmig::agent {
namespace {

using std::chrono::milliseconds;

constexpr milliseconds kFirstLook{100};
constexpr int kLiveShare = 8;  // LOAD counts a flow for at most an eighth of its life too long
constexpr int kRefusedShare = 2;
constexpr milliseconds kGonePause{50};
// of the tombstones may wait; where more end, the switch's own eyes must do
constexpr std::size_t kGoneShare = 4;
constexpr std::size_t kGoneBatch = 100;  // 2000 a second: the switch sees most ends itself
constexpr milliseconds kAnnouncePause{250};
constexpr std::size_t kSweepBatch = 2000;

/// Alive for the switch: all but TIME_WAIT, CLOSE and what is not connected.
constexpr std::uint32_t kLiveStates = 1U << BPF_TCP_ESTABLISHED | 1U << BPF_TCP_SYN_RECV |
                                      1U << BPF_TCP_FIN_WAIT1 | 1U << BPF_TCP_FIN_WAIT2 |
                                      1U << BPF_TCP_CLOSE_WAIT | 1U << BPF_TCP_LAST_ACK |
                                      1U << BPF_TCP_CLOSING;

}  // namespace

Flows::Flows(const config::Config& config, sys::SockDiag& diag, Tombstones& tombstones,
             Endings& endings, Answers& answers, Counters& counters, Delivering delivering,
             Leaving leaving, Withdrawn withdrawn, TimePoint now)
    : config_(config),
      diag_(diag),
      tombstones_(tombstones),
      endings_(endings),
      answers_(answers),
      counters_(counters),
      delivering_(std::move(delivering)),
      leaving_(std::move(leaving)),
      withdrawn_(std::move(withdrawn)),
      next_gone_(now) {
  adopt(now);
}

void Flows::opened(const abi::flow_key& flow, const LiveFlow& live) {
  const LiveFlow* known = find(flow);
  if (known == nullptr || known->generation != live.generation)
    census_.add(flow, live.generation, live.opened, live.opened + kFirstLook);
  live_.insert_or_assign(flow, live);
  if (!live.unsettled && live.opened < announcing_until_)
    answers_.renew(flow, live.generation, live.target_port);
}

/// A datagram may be lost: several times, ever less often. What is confirmed meanwhile is told at once (opened()): the former
/// table may have seen its COMMIT.
void Flows::announce(TimePoint now) {
  announcing_until_ = now + std::max(config_.timeouts.transfer, 4 * kAnnouncePause);
  next_announcement_ = now;
  announce_pause_ = kAnnouncePause;
}

void Flows::announce_all(TimePoint now) {
  if (now >= announcing_until_ || now < next_announcement_) return;
  next_announcement_ = now + announce_pause_;
  announce_pause_ *= 2;
  for (auto& [flow, live] : live_) live.renewed = now - config_.timeouts.idle;
  census_.hasten(now);
  ++counters_.announcements;
}

void Flows::announce(const abi::flow_key& flow) {
  const LiveFlow* live = find(flow);
  if (live != nullptr && !live->unsettled)
    answers_.renew(flow, live->generation, live->target_port);
}

void Flows::settled(const abi::flow_key& flow, control::Generation generation, TimePoint now,
                    bool may_have_lived) {
  retired_.push_back({flow, generation, now, may_have_lived});
  census_.add(flow, generation, now, now + kFirstLook);
}

void Flows::left(const abi::flow_key& flow, control::Generation generation, TimePoint now) {
  const auto live = live_.find(flow);
  if (live != live_.end() && live->second.generation == generation) live_.erase(live);
  settled(flow, generation, now);
}

const LiveFlow* Flows::find(const abi::flow_key& flow) const {
  const auto found = live_.find(flow);
  return found == live_.end() ? nullptr : &found->second;
}

/// Whether their sockets live the census tells.
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
                    .target_port = tombstone.target_port,
                    .unsettled = tombstone.state == abi::TOMB_OPENING,
                    .awaited = tombstone.received,
                    .opened = now,
                    .renewed = now - config_.timeouts.idle});
    else
      settled(flow, tombstone.generation, now, tombstone.state == abi::TOMB_REFUSED);
  });
}

void Flows::retire(FlowMap<LiveFlow>::iterator flow, TimePoint now) {
  const Ended ended{flow->first, flow->second.generation, now, true};
  if (flow->second.unsettled)
    tombstones_.settle(ended.flow, ended.generation, abi::TOMB_REFUSED, abi::REASON_ABORTED);
  live_.erase(flow);
  retired_.push_back(ended);
  ended_.push_back(ended);
  if (ended_.size() <= config_.limits.tombstones / kGoneShare + 1) return;
  ended_.pop_front();
  ++counters_.gone_dropped;
}

void Flows::stray_syn(const abi::flow_key& flow, TimePoint now) {
  ++counters_.stray_syn;
  const auto tombstone = tombstones_.find(flow);
  if (!tombstone || tombstone->state == abi::TOMB_OPENING ||
      tombstone->state == abi::TOMB_ANNOUNCED)
    return;
  const auto socket = diag_.find(local_of(flow, tombstone->target_port), client_of(flow));
  // A SYN finds TIME_WAIT too: the connection has ended, the switch may give its successor to a dispatcher.
  if (socket && socket->state != BPF_TCP_TIME_WAIT) return;
  if (const auto live = live_.find(flow); live != live_.end()) {
    retire(live, now);
    ended_.pop_back();
  }
  answers_.gone(flow, tombstone->generation);
}

bool Flows::end_if_cut_short(const abi::flow_key& flow, const abi::tombstone& tombstone,
                             TimePoint now) {
  if (tombstone.received == 0) return false;
  const auto child = diag_.find(local_of(flow, tombstone.target_port), client_of(flow), true);
  if (!child || !child->tcp || child->tcp->tcpi_bytes_received >= tombstone.received) return false;
  if (!tombstones_.is_of(flow, tombstone.generation)) return false;
  if (endings_.end(flow, *child, now)) ++counters_.cut_short;
  return true;
}

/// What a former run had not confirmed, and nobody has asked about in time, is confirmed now, if it is whole. False: it has ended.
bool Flows::settle_adopted(FlowMap<LiveFlow>::iterator found, TimePoint now) {
  auto& [flow, live] = *found;
  if (live.unsettled && now - live.opened <= 2 * config_.timeouts.transfer) return true;
  if (live.awaited > 0 && !delivering_(flow)) {
    abi::tombstone awaited{};
    awaited.generation = live.generation;
    awaited.target_port = live.target_port;
    awaited.received = live.awaited;
    if (end_if_cut_short(flow, awaited, now)) {
      retire(found, now);
      return false;
    }
    live.awaited = 0;
  }
  if (live.unsettled && live.awaited == 0) {
    tombstones_.settle(flow, live.generation, abi::TOMB_CONFIRMED);
    live.unsettled = false;
  }
  return true;
}

/// Its socket lives.
void Flows::seen(FlowMap<LiveFlow>::iterator found, TimePoint now) {
  auto& [flow, live] = *found;
  if ((live.unsettled || live.awaited > 0) && !settle_adopted(found, now)) return;
  if (now - live.renewed < config_.timeouts.idle / 3) return;
  // Whose it is, is not known. To a switch that has lost its table we would say that it is ours, while its new owner may have spoken
  // already: and would then take it back.
  if (leaving_(flow)) return;
  // a fresh COMMIT has started the lease; nobody knows when that of an adopted flow was renewed: at once
  live.renewed = now;
  answers_.renew(flow, live.generation, live.target_port);
}

std::optional<sys::SocketInfo> Flows::living(const abi::flow_key& flow, std::uint16_t port) {
  auto socket = diag_.find(local_of(flow, port), client_of(flow));
  if (socket && (kLiveStates >> socket->state & 1U) == 0) socket.reset();
  return socket;
}

/// A child may be born after its transfer had been refused or aborted: the request runs elsewhere by now. False: it is too late for that.
bool Flows::end_late_child(const Census::Subject& subject, TimePoint now) {
  const auto tombstone = tombstones_.find(subject.flow);
  if (!tombstone || tombstone->generation != subject.generation ||
      (tombstone->state != abi::TOMB_REFUSED && tombstone->state != abi::TOMB_ABORTED))
    return false;
  const auto child = living(subject.flow, tombstone->target_port);
  if (child && !withdrawn_(child->cookie) && diag_.destroy(*child)) ++counters_.late_children_ended;
  return now - subject.since < least_retention();
}

std::optional<milliseconds> Flows::look(const Census::Subject& subject, TimePoint now) {
  const auto age = std::chrono::duration_cast<milliseconds>(now - subject.since);
  const auto found = live_.find(subject.flow);
  if (found == live_.end()) {
    if (!end_late_child(subject, now)) return std::nullopt;
    return std::max(age / kRefusedShare, kFirstLook);
  }
  if (found->second.generation != subject.generation) return std::nullopt;
  if (!living(subject.flow, found->second.target_port)) {
    retire(found, now);
    return std::nullopt;
  }
  seen(found, now);
  return std::clamp(age / kLiveShare, kFirstLook, std::max(kFirstLook, config_.timeouts.scan));
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
  const milliseconds least = least_retention(), usual = config_.timeouts.tombstone;
  const bool scarce = tombstones() > tombstones_.capacity() / 4 * 3;
  return scarce ? std::min(least, usual) : std::max(least, usual);
}

milliseconds Flows::least_retention() const {
  return 2 * config_.timeouts.transfer + config_.timeouts.hold;
}

void Flows::sweep(TimePoint now) {
  const milliseconds keep = retention();
  for (std::size_t i = 0; i < kSweepBatch && !retired_.empty(); ++i) {
    const Ended ended = retired_.front();
    if (now - ended.when < keep) return;
    retired_.pop_front();
    const LiveFlow* successor = find(ended.flow);
    if (successor != nullptr && successor->generation == ended.generation) continue;
    // one that was announced stands here twice
    const bool swept = tombstones_.sweep(ended.flow, ended.generation);
    if (!swept && (!ended.lived || tombstones_.find(ended.flow))) continue;
    if (swept) ++counters_.swept;
    // Once more, for the first may have been lost, and afterwards nobody knows the flow any more: where there is time. For one
    // that was refused it is the first.
    if (ended.lived && ended_.size() < kGoneBatch) ended_.push_back(ended);
  }
}

TimePoint Flows::due() const {
  TimePoint first = census_.due();
  if (!ended_.empty()) first = std::min(first, next_gone_);
  if (next_announcement_ < announcing_until_) first = std::min(first, next_announcement_);
  return first;
}

void Flows::run(TimePoint now) {
  announce_all(now);
  census_.run(
      now, [this](const Census::Subject& subject, TimePoint when) { return look(subject, when); });
  if (now >= next_gone_ && !ended_.empty()) {
    tell_gone();
    next_gone_ = now + kGonePause;
  }
  sweep(now);
}

}  // namespace tcpmig::agent
