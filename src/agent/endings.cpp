// SPDX-License-Identifier: MIT
#include "agent/endings.hpp"

#include <linux/bpf.h>  // the TCP states

#include <algorithm>
#include <array>
#include <chrono>

#include "agent/guarded.hpp"
#include "agent/segments.hpp"
#include "conn/segment.hpp"

namespace tcpmig::agent {
namespace {

using std::chrono::milliseconds;

/// Before the switch has forgotten a closing flow (timeouts.closing; 2 s in the lab).
constexpr std::array kRepeatAfter{milliseconds{50}, milliseconds{200}, milliseconds{800}};
constexpr std::size_t kMost = 4096;  // beyond it the oldest is not repeated any more

bool has_sent_fin(std::uint8_t state) {
  return state == BPF_TCP_FIN_WAIT1 || state == BPF_TCP_FIN_WAIT2 || state == BPF_TCP_CLOSING ||
         state == BPF_TCP_LAST_ACK;
}

/// net/ipv4/tcp_output.c counts in bytes_sent what it sends, repeats included, SYN and FIN not.
std::uint32_t next_to_send(const abi::tombstone& tombstone, const sys::SocketInfo& child) {
  const std::uint64_t sent = child.tcp->tcpi_bytes_sent - child.tcp->tcpi_bytes_retrans;
  return tombstone.snd_nxt + static_cast<std::uint32_t>(sent) + (has_sent_fin(child.state) ? 1 : 0);
}

}  // namespace

bool Endings::end(const abi::flow_key& flow, const sys::SocketInfo& child, TimePoint now) {
  const auto tombstone =
      tombstones_.find(flow);  // before: afterwards the next transfer may be there
  if (!diag_.destroy(child)) return false;
  if (!tombstone || !child.tcp) return true;
  if (ended_.size() >= kMost) ended_.pop_front();
  ended_.push_back({.flow = flow,
                    .local = child.local,
                    .generation = tombstone->generation,
                    .snd_nxt = next_to_send(*tombstone, child),
                    .repeats = 0,
                    .next = now + kRepeatAfter.front(),
                    .since = now});
  return true;
}

void Endings::tell(const abi::flow_key& flow, const sys::Endpoint& local, std::uint32_t generation,
                   std::uint32_t snd_nxt, TimePoint now) {
  tell_later(flow, local, generation, snd_nxt, now);
  ended_.back().next = now + kRepeatAfter.front();
  repeat(ended_.back());
}

void Endings::tell_later(const abi::flow_key& flow, const sys::Endpoint& local,
                         std::uint32_t generation, std::uint32_t snd_nxt, TimePoint when) {
  if (ended_.size() >= kMost) ended_.pop_front();
  ended_.push_back({.flow = flow,
                    .local = local,
                    .generation = generation,
                    .snd_nxt = snd_nxt,
                    .repeats = 0,
                    .next = when,
                    .since = when});
}

bool Endings::is_ending(const abi::flow_key& flow, TimePoint now) const {
  return std::ranges::any_of(ended_, [&](const Ended& ended) {
    return FlowEqual{}(ended.flow, flow) && now >= ended.since;
  });
}

/// Not for a successor on the same four-tuple, which has its own tombstone.
void Endings::repeat(const Ended& ended) {
  const auto tombstone = tombstones_.find(ended.flow);
  if (!tombstone || tombstone->generation != ended.generation) return;
  conn::give_packets(client_of(ended.flow), ended.local, acknowledgement(ended.snd_nxt),
                     [&](std::span<const std::byte> packet) {
                       if (!tun_.inject(packet)) ++counters_.tun_full;
                     });
}

TimePoint Endings::due() const {
  TimePoint first = TimePoint::max();
  for (const Ended& ended : ended_) first = std::min(first, ended.next);
  return first;
}

void Endings::run(TimePoint now) {
  for (Ended& ended : ended_) {
    if (ended.next > now) continue;
    guarded("repeat a RST", [&] { repeat(ended); });
    if (++ended.repeats < kRepeatAfter.size())
      ended.next = now + kRepeatAfter[ended.repeats] - kRepeatAfter[ended.repeats - 1];
  }
  std::erase_if(ended_, [](const Ended& ended) { return ended.repeats >= kRepeatAfter.size(); });
}

}  // namespace tcpmig::agent
