// SPDX-License-Identifier: MIT
#include "conn/append_segment.hpp"

#include <arpa/inet.h>
#include <netinet/tcp.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <optional>

namespace tcpmig::conn {
namespace {

constexpr std::size_t kTimestampsSize = 12;  // NOP NOP TIMESTAMPS(10): RFC 7323, appendix A

struct Parsed {
  tcphdr tcp;
  std::span<const std::byte> options, data;
};

std::optional<Parsed> parse(std::span<const std::byte> segment) {
  tcphdr tcp{};
  if (segment.size() < sizeof tcp) return std::nullopt;
  std::memcpy(&tcp, segment.data(), sizeof tcp);
  const std::size_t header = tcp.doff * 4U;
  if (header < sizeof tcp || header > segment.size()) return std::nullopt;
  return Parsed{tcp, segment.subspan(sizeof tcp, header - sizeof tcp), segment.subspan(header)};
}

std::uint32_t word_at(std::span<const std::byte> bytes, std::size_t offset) {
  std::uint32_t word = 0;
  std::memcpy(&word, bytes.data() + offset, sizeof word);
  return ntohl(word);
}

/// The TSval, where `options` are nothing but timestamps.
std::optional<std::uint32_t> only_timestamps(std::span<const std::byte> options) {
  constexpr std::array kKind{std::byte{TCPOPT_NOP}, std::byte{TCPOPT_NOP},
                             std::byte{TCPOPT_TIMESTAMP}, std::byte{TCPOLEN_TIMESTAMP}};
  if (options.size() != kTimestampsSize ||
      std::memcmp(options.data(), kKind.data(), kKind.size()) != 0)
    return std::nullopt;
  return word_at(options, kKind.size());
}

/// What is added to the timestamps; nullopt: not the options that every segment of this connection has.
std::optional<std::uint32_t> acceptable_timestamp(const Snapshot& snapshot,
                                                  std::span<const std::byte> options) {
  if (!snapshot.timestamps) return options.empty() ? std::optional(0U) : std::nullopt;
  const auto tsval = only_timestamps(options);
  const auto& latest = snapshot.timestamps->ts_recent;
  if (!tsval || !latest || Seq{*tsval}.before(Seq{*latest})) return std::nullopt;
  return *tsval;
}

bool is_plain(const tcphdr& tcp) {
  return tcp.ack == 1 && tcp.syn == 0 && tcp.fin == 0 && tcp.rst == 0 && tcp.urg == 0 &&
         tcp.res1 == 0 && tcp.res2 == 0;
}

void set_peer_window(Snapshot& snapshot, Seq seq, std::uint32_t window) {
  snapshot.snd_wnd = window << (snapshot.wscale ? snapshot.wscale->snd : 0);
  if (!snapshot.window) return;
  snapshot.window->snd_wl1 = seq.value;
  snapshot.window->snd_wnd = snapshot.snd_wnd;
  snapshot.window->max_window = std::max(snapshot.window->max_window, snapshot.snd_wnd);
}

}  // namespace

bool append_segment(Snapshot& snapshot, std::span<const std::byte> segment) {
  const auto parsed = parse(segment);
  if (!parsed || snapshot.peer_closed()) return false;
  const auto& [tcp, options, data] = *parsed;
  const Seq seq{ntohl(tcp.seq)};
  const auto timestamp = acceptable_timestamp(snapshot, options);
  const std::uint32_t present = snapshot.rcv_nxt.since(seq);  // a gap is a huge number, too
  if (!is_plain(tcp) || ntohl(tcp.ack_seq) != snapshot.snd_nxt.value || !timestamp ||
      present >= data.size())
    return false;
  const auto fresh = data.subspan(present);
  snapshot.received.insert(snapshot.received.end(), fresh.begin(), fresh.end());
  snapshot.rcv_nxt = snapshot.rcv_nxt + static_cast<std::uint32_t>(fresh.size());
  set_peer_window(snapshot, seq, ntohs(tcp.window));
  if (snapshot.timestamps) snapshot.timestamps->ts_recent = *timestamp;
  return true;
}

bool adds_nothing(Seq rcv_nxt, std::span<const std::byte> segment) {
  const auto parsed = parse(segment);
  if (!parsed || parsed->data.empty()) return false;
  const tcphdr& tcp = parsed->tcp;
  const Seq end = Seq{ntohl(tcp.seq)} + static_cast<std::uint32_t>(parsed->data.size());
  return tcp.syn == 0 && tcp.fin == 0 && tcp.rst == 0 && !end.after(rcv_nxt);
}

}  // namespace tcpmig::conn
