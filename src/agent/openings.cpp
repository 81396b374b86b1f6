// SPDX-License-Identifier: MIT
#include "agent/openings.hpp"

#include <arpa/inet.h>
#include <linux/bpf.h>  // the TCP states

#include <algorithm>
#include <utility>

#include "agent/segments.hpp"
#include "conn/segment.hpp"

namespace tcpmig::agent {
namespace {

using std::chrono::microseconds;

constexpr std::size_t kOpening = 1024;  // first segment: fits any window
constexpr std::size_t kChunkMost = 16'384;
constexpr std::size_t kChunkLeast = 512;
constexpr std::size_t kUnread = 49'152;  // the child's first window is at most about 64 KB
constexpr microseconds kPauseLeast{200};
constexpr microseconds kPauseMost{20'000};
constexpr std::chrono::seconds kPatience{
    60};  // a server that reads nothing for so long has given up

abi::pending_resume attributes_of(const abi::wire_header& commit) {
  abi::pending_resume resume{};
  resume.generation = ntohl(commit.generation);
  resume.tsval_now = ntohl(commit.tsval_now);
  resume.ts_recent = ntohl(commit.ts_recent);
  resume.mss = ntohs(commit.mss);
  resume.target_port = ntohs(commit.target_port);
  resume.options = commit.options;
  resume.snd_wscale = commit.snd_wscale;
  resume.rcv_wscale = commit.rcv_wscale;
  return resume;
}

sys::Endpoint local_end(const Arrival& arrival) {
  return local_of(arrival.flow, ntohs(arrival.commit.target_port));
}

std::uint32_t first_seq(const Arrival& arrival) {
  return ntohl(arrival.commit.rcv_nxt) - static_cast<std::uint32_t>(arrival.received.size());
}

bool ends_with_fin(const Arrival& arrival) {
  return (arrival.commit.flags & abi::WIRE_FLAG_CLIENT_FIN) != 0;
}

std::span<const std::byte> piece(const Arrival& arrival, std::size_t offset, std::size_t length) {
  return std::span<const std::byte>(arrival.received).subspan(offset, length);
}

}  // namespace

bool Openings::inject(const sys::Endpoint& client, const sys::Endpoint& local,
                      std::span<const std::byte> segment) {
  return conn::give_packets(client, local, segment,
                            [&](std::span<const std::byte> packet) { inject(packet); });
}

void Openings::inject_end(const Arrival& arrival) {
  if (!ends_with_fin(arrival)) return;
  inject(client_of(arrival.flow), local_end(arrival),
         further_segment(arrival.commit, ntohl(arrival.commit.rcv_nxt),
                         ntohl(arrival.commit.snd_nxt), {}, true));
}

void Openings::inject(std::span<const std::byte> packet) {
  if (!tun_.inject(packet)) ++counters_.tun_full;
}

std::optional<Refusal> Openings::write_opening(const Arrival& arrival, std::size_t first) {
  const control::Generation generation = ntohl(arrival.commit.generation);
  const bool whole = first == arrival.received.size();
  sys::map_update(pending_map_, arrival.flow, attributes_of(arrival.commit));
  const Bytes segment = opening_segment(arrival.commit, first_seq(arrival),
                                        piece(arrival, 0, first), whole && ends_with_fin(arrival));
  inject(client_of(arrival.flow), local_end(arrival), segment);
  // The write has run the program already. What it left behind was dropped on the way to it.
  sys::map_delete(pending_map_, arrival.flow);
  const auto tombstone = tombstones_.find(arrival.flow);
  if (tombstone && tombstone->generation == generation && tombstone->state == abi::TOMB_REFUSED)
    return Refusal{static_cast<abi::wire_reason>(tombstone->reason), tombstone->detail};
  return std::nullopt;
}

std::optional<Refusal> Openings::open(Arrival arrival, TimePoint now) {
  if (arrival.received.empty()) return Refusal{abi::REASON_UNSUPPORTED};
  if (auto busy = end_old_socket(diag_, tombstones_, arrival, counters_)) return busy;
  switch (tombstones_.claim(arrival.flow, arrival.commit).what) {
    case abi::TOMBSTONE_DONE:
      break;
    case abi::TOMBSTONE_FULL:
      return Refusal{abi::REASON_TOMBSTONES_FULL};
    default:
      return Refusal{abi::REASON_STALE_GENERATION};
  }
  ++counters_.through_tun;
  const std::size_t first = std::min(kOpening, arrival.received.size());
  if (auto refusal = write_opening(arrival, first)) return refusal;
  if (first < arrival.received.size()) {
    Delivery& delivery = deliveries_[arrival.flow];
    delivery = {.arrival = std::move(arrival),
                .chunk = kChunkMost,
                .pause = kPauseLeast,
                .deadline = now + kPatience};
  }
  return std::nullopt;
}

void Openings::take_up(Arrival arrival, TimePoint now) {
  Delivery& delivery = deliveries_[arrival.flow];
  delivery = {.arrival = std::move(arrival),
              .chunk = kChunkMost,
              .pause = kPauseLeast,
              .deadline = now + kPatience};
}

bool Openings::begin(const abi::flow_key& flow, TimePoint now) {
  const auto found = deliveries_.find(flow);
  if (found == deliveries_.end()) return false;
  found->second.next = now;
  return true;
}

/// False: nothing was sent, for there is no room as far as can be told.
bool Openings::inject_chunk(const Delivery& delivery, const ::tcp_info& child) {
  const Arrival& arrival = delivery.arrival;
  const auto offset = static_cast<std::size_t>(child.tcpi_bytes_received);
  const std::size_t length = std::min(delivery.chunk, arrival.received.size() - offset);
  const bool last = offset + length == arrival.received.size();
  const auto ack =
      ntohl(arrival.commit.snd_nxt) + static_cast<std::uint32_t>(child.tcpi_bytes_acked);
  const Bytes segment =
      further_segment(arrival.commit, first_seq(arrival) + static_cast<std::uint32_t>(offset), ack,
                      piece(arrival, offset, length), last && ends_with_fin(arrival));
  return inject(client_of(arrival.flow), local_end(arrival), segment);
}

bool Openings::deliver(Delivery& delivery, TimePoint now) {
  const Arrival& arrival = delivery.arrival;
  std::size_t before = 0;
  for (bool injected = false;; injected = true) {
    const auto child = diag_.find(local_end(arrival), client_of(arrival.flow), true);
    if (!child || !child->tcp) return true;  // it has ended: as if the client's bytes came too late
    const auto received = static_cast<std::size_t>(child->tcp->tcpi_bytes_received);
    if (received >= arrival.received.size()) return true;
    if (now > delivery.deadline) {
      ++counters_.stalled;
      diag_.destroy(local_end(arrival), client_of(arrival.flow));
      return true;
    }
    if (injected && received == before)
      break;  // not taken: no room, or the application holds the socket
    if (injected) delivery.pause = kPauseLeast;
    if (child->recv_queue > 0 && child->recv_queue + delivery.chunk > kUnread) break;
    before = received;
    inject_chunk(delivery, *child->tcp);
  }
  delivery.next = now + delivery.pause;
  delivery.pause = std::min(2 * delivery.pause, kPauseMost);
  delivery.chunk = std::max(delivery.chunk / 2, kChunkLeast);
  return false;
}

TimePoint Openings::due() const {
  TimePoint first = TimePoint::max();
  for (const auto& [flow, delivery] : deliveries_) first = std::min(first, delivery.next);
  return first;
}

void Openings::run(TimePoint now) {
  std::vector<abi::flow_key> complete;
  for (auto& [flow, delivery] : deliveries_)
    if (delivery.next <= now && deliver(delivery, now)) complete.push_back(flow);
  for (const abi::flow_key& flow : complete) {
    deliveries_.erase(flow);
    complete_(flow);
  }
}

std::optional<Refusal> end_old_socket(sys::SockDiag& diag, const Tombstones& tombstones,
                                      const Arrival& arrival, Counters& counters) {
  const auto local = local_end(arrival);
  const auto client = client_of(arrival.flow);
  const auto socket = diag.find(local, client);
  if (!socket) return std::nullopt;
  const auto tombstone = tombstones.find(arrival.flow);
  const bool old =
      tombstone && control::newer(ntohl(arrival.commit.generation), tombstone->generation);
  if (socket->state != BPF_TCP_TIME_WAIT && !old)
    return Refusal{abi::REASON_TUPLE_BUSY, socket->state};
  if (diag.destroy(local, client)) ++counters.old_sockets_ended;
  return std::nullopt;
}

}  // namespace tcpmig::agent
