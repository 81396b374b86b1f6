// SPDX-License-Identifier: MIT
#include "agent/openings.hpp"

#include <arpa/inet.h>

#include <algorithm>
#include <cerrno>
#include <system_error>
#include <utility>

#include "agent/guarded.hpp"
#include "agent/segments.hpp"
#include "conn/segment.hpp"

namespace tcpmig::agent {
namespace {

using std::chrono::microseconds;

constexpr std::size_t kOpening = 1024;  // first segment: fits any window
constexpr std::size_t kChunkMost = 16'384;
constexpr std::size_t kChunkLeast = 512;
constexpr std::size_t kReceivedMost = std::size_t{2} * abi::WIRE_SNAPSHOT_MAX;
constexpr std::size_t kUnread = 49'152;  // the child's first window is at most about 64 KB
constexpr microseconds kPauseLeast{200};
constexpr microseconds kPauseMost{20'000};

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

/// What the next segment of a flow on the TUN is resumed with: there as long as this lives. The program takes it out; where it does not
/// run, nobody else may find it later.
class Pending {
 public:
  Pending(int map, const Arrival& arrival) : map_(map), flow_(arrival.flow) {
    sys::map_update(map_, flow_, attributes_of(arrival.commit));
  }
  ~Pending() {
    guarded("forget a pending resume", [&] { sys::map_delete(map_, flow_); });
  }
  Pending(const Pending&) = delete;
  Pending& operator=(const Pending&) = delete;

 private:
  int map_;
  abi::flow_key flow_;
};

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

void Openings::inject(std::span<const std::byte> packet) {
  if (!tun_.inject(packet)) ++counters_.tun_full;
}

std::optional<Refusal> Openings::write_opening(const Arrival& arrival, std::size_t first) {
  const control::Generation generation = ntohl(arrival.commit.generation);
  const bool whole = first == arrival.received.size();
  const Bytes segment = opening_segment(arrival.commit, first_seq(arrival),
                                        piece(arrival, 0, first), whole && ends_with_fin(arrival));
  const std::uint64_t not_taken = counters_.tun_full;
  {
    const Pending pending(pending_map_, arrival);
    inject(client_of(arrival.flow), local_end(arrival), segment);  // the write runs the program
  }
  if (counters_.tun_full != not_taken) return Refusal{abi::REASON_KERNEL_REFUSED, ENOBUFS};
  const auto tombstone = tombstones_.find(arrival.flow);
  if (tombstone && tombstone->generation == generation && tombstone->state == abi::TOMB_REFUSED)
    return Refusal{static_cast<abi::wire_reason>(tombstone->reason), tombstone->detail};
  return std::nullopt;
}

std::uint32_t Openings::paced(const Arrival& arrival) {
  return arrival.received.size() > kOpening ? static_cast<std::uint32_t>(arrival.received.size())
                                            : 0;
}

std::optional<Refusal> Openings::open(Arrival arrival, TimePoint now) {
  if (arrival.received.empty()) return Refusal{abi::REASON_INCOMPLETE};
  ++counters_.through_tun;
  const std::size_t first = std::min(kOpening, arrival.received.size());
  if (auto refusal = write_opening(arrival, first)) return refusal;
  if (first < arrival.received.size()) {
    Delivery& delivery = deliveries_[arrival.flow];
    delivery = {.arrival = std::move(arrival),
                .chunk = kChunkMost,
                .pause = kPauseLeast,
                .deadline = now + patience_};
  }
  return std::nullopt;
}

void Openings::take_up(Arrival arrival, TimePoint now) {
  Delivery& delivery = deliveries_[arrival.flow];
  delivery = {.arrival = std::move(arrival),
              .chunk = kChunkMost,
              .pause = kPauseLeast,
              .deadline = now + patience_};
}

bool Openings::begin(const abi::flow_key& flow, control::Generation generation, TimePoint now) {
  const auto found = deliveries_.find(flow);
  if (found == deliveries_.end()) return false;
  if (ntohl(found->second.arrival.commit.generation) != generation) {  // of an earlier transfer
    deliveries_.erase(found);
    return false;
  }
  found->second.next = now;
  return true;
}

void Openings::forget(const abi::flow_key& flow, control::Generation generation) {
  const auto found = deliveries_.find(flow);
  if (found != deliveries_.end() &&
      !control::newer(ntohl(found->second.arrival.commit.generation), generation))
    deliveries_.erase(found);
}

bool Openings::append(const abi::flow_key& flow, control::Generation generation,
                      std::span<const std::byte> segment) {
  const auto found = deliveries_.find(flow);
  const auto data = data_of(segment);
  if (found == deliveries_.end() || !data) return false;
  Arrival& arrival = found->second.arrival;
  const std::uint32_t next = ntohl(arrival.commit.rcv_nxt);
  const std::uint32_t present = next - data->seq;  // bytes of it that are there already
  if (ntohl(arrival.commit.generation) != generation || ends_with_fin(arrival) ||
      present > arrival.received.size())
    return false;
  if (present >= data->bytes.size()) return true;  // a repeat
  const auto fresh = data->bytes.subspan(present);
  if (arrival.received.size() + fresh.size() > kReceivedMost) return false;
  arrival.received.insert(arrival.received.end(), fresh.begin(), fresh.end());
  arrival.commit.rcv_nxt = htonl(next + static_cast<std::uint32_t>(fresh.size()));
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

/// For the client what is missing is acknowledged: a connection without it must not live on.
void Openings::give_up(const Delivery& delivery, TimePoint now) {
  ++counters_.stalled;
  const Arrival& arrival = delivery.arrival;
  guarded("end a connection", [&] {
    const auto child = diag_.find(local_end(arrival), client_of(arrival.flow), true);
    if (child && tombstones_.is_of(arrival.flow, ntohl(arrival.commit.generation)))
      endings_.end(arrival.flow, *child, now);
  });
}

bool Openings::deliver(Delivery& delivery, TimePoint now) {
  const Arrival& arrival = delivery.arrival;
  std::size_t before = 0;
  for (bool injected = false;; injected = true) {
    const auto child = diag_.find(local_end(arrival), client_of(arrival.flow), true);
    if (!child || !child->tcp) return true;  // it has ended: as if the client's bytes came too late
    if (!tombstones_.is_of(arrival.flow, ntohl(arrival.commit.generation))) return true;
    const auto received = static_cast<std::size_t>(child->tcp->tcpi_bytes_received);
    if (received >= arrival.received.size()) return true;
    if (now > delivery.deadline) {
      give_up(delivery, now);
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
  for (auto& [flow, delivery] : deliveries_) {
    if (delivery.next > now) continue;
    bool done = false;
    if (!guarded("deliver", [&, &one = delivery] { done = deliver(one, now); })) {
      give_up(delivery, now);
      done = true;
    }
    if (done) complete.push_back(flow);
  }
  for (const abi::flow_key& flow : complete) {
    deliveries_.erase(flow);
    guarded("end a delivery", [&] { complete_(flow); });
  }
}

namespace {

/// The program has opened a repeat of this COMMIT meanwhile, or a newer transfer: the socket may be its child.
bool is_claimed(const std::optional<abi::tombstone>& tombstone, control::Generation generation) {
  if (!tombstone || control::newer(generation, tombstone->generation)) return false;
  return tombstone->generation != generation || tombstone->state != abi::TOMB_ANNOUNCED;
}

}  // namespace

std::optional<Refusal> end_old_socket(sys::SockDiag& diag, const Tombstones& tombstones,
                                      const Arrival& arrival, Counters& counters) {
  const auto socket = diag.find(local_end(arrival), client_of(arrival.flow));
  if (!socket || is_claimed(tombstones.find(arrival.flow), ntohl(arrival.commit.generation)))
    return std::nullopt;  // the claim will say so
  try {
    if (diag.destroy(*socket)) ++counters.old_sockets_ended;
    return std::nullopt;
  } catch (const std::system_error& error) {
    return Refusal{abi::REASON_TUPLE_BUSY, static_cast<std::uint32_t>(error.code().value())};
  }
}

}  // namespace tcpmig::agent
