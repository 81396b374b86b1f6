// SPDX-License-Identifier: MIT
#include "cli/snapshot_text.hpp"

#include <algorithm>
#include <array>
#include <cstdio>
#include <nlohmann/json.hpp>
#include <span>
#include <utility>
#include <vector>

#include "cli/text_table.hpp"

namespace tcpmig::cli {
namespace {

using Json = nlohmann::json;
using Rows = std::vector<std::vector<std::string>>;

constexpr std::size_t kPreview = 64, kLine = 16;
constexpr std::uint32_t kNoThreshold = 0x7fffffff;  // TCP_INFINITE_SSTHRESH (include/net/tcp.h)

std::string hex(std::span<const std::byte> bytes, const char* between) {
  std::string text;
  for (const std::byte byte : bytes) {
    std::array<char, 3> digits{};
    std::snprintf(digits.data(), digits.size(), "%02x", std::to_integer<unsigned>(byte));
    text += (text.empty() ? "" : between) + std::string(digits.data());
  }
  return text;
}

std::string printable(std::span<const std::byte> bytes) {
  std::string text;
  for (const std::byte byte : bytes) {
    const auto character = std::to_integer<char>(byte);
    text += character >= ' ' && character <= '~' ? character : '.';
  }
  return text;
}

std::string preview(std::span<const std::byte> queue) {
  std::string text;
  const auto head = queue.first(std::min(queue.size(), kPreview));
  for (std::size_t at = 0; at < head.size(); at += kLine) {
    const auto line = head.subspan(at, std::min(kLine, head.size() - at));
    std::array<char, 100> row{};
    std::snprintf(row.data(), row.size(), "    %6zu  %-47s  %s\n", at, hex(line, " ").c_str(),
                  printable(line).c_str());
    text += row.data();
  }
  if (queue.size() > kPreview)
    text += "            and " + std::to_string(queue.size() - kPreview) + " more\n";
  return text;
}

std::string bytes(std::size_t count) {
  return count == 0 ? "none" : std::to_string(count) + (count == 1 ? " byte" : " bytes");
}

const char* state_in_words(TcpState state) {
  switch (state) {
    case TcpState::kEstablished:
      return "both directions are open";
    case TcpState::kFinWait1:
      return "this end has closed, the peer has not said that it knows";
    case TcpState::kFinWait2:
      return "this end has closed, the peer knows";
    case TcpState::kCloseWait:
      return "the peer has closed";
    case TcpState::kLastAck:
      return "the peer has closed, then this end, which the peer has not said that it knows";
    case TcpState::kClosing:
      return "this end has closed, then the peer, which has not said that it knows";
  }
  return "";
}

std::string window_text(const Snapshot& snapshot) {
  std::string text = "the peer takes " + std::to_string(snapshot.snd_wnd) + " bytes";
  if (snapshot.window)
    text += ", at most " + std::to_string(snapshot.window->max_window) +
            " so far; we have offered " + std::to_string(snapshot.window->rcv_wnd) + " from " +
            std::to_string(snapshot.window->rcv_wup) + " on";
  return text;
}

std::string options_text(const Snapshot& snapshot) {
  std::string text = "MSS " + std::to_string(snapshot.mss);
  if (snapshot.wscale)
    text += ", window scale " + std::to_string(snapshot.wscale->snd) + " (peer) and " +
            std::to_string(snapshot.wscale->rcv) + " (ours)";
  if (snapshot.sack) text += ", SACK";
  if (snapshot.timestamps) text += ", timestamps";
  if (snapshot.ecn) text += ", ECN";
  return text;
}

std::string timestamps_text(const Timestamps& timestamps) {
  return "ours is " + std::to_string(timestamps.tsval_now) + ", the peer's " +
         (timestamps.ts_recent ? std::to_string(*timestamps.ts_recent) : "not known") +
         ", a tick is " + (timestamps.microseconds ? "1 us" : "1 ms");
}

std::string congestion_text(const Snapshot& snapshot) {
  if (snapshot.snd_cwnd == 0) return "window not known";
  return "window " + std::to_string(snapshot.snd_cwnd) + " segments, slow start up to " +
         (snapshot.snd_ssthresh >= kNoThreshold ? "whatever comes"
                                                : std::to_string(snapshot.snd_ssthresh));
}

void add(std::string& text, const std::string& word) { text += (text.empty() ? "" : ", ") + word; }

std::string settings_text(const SocketSettings& settings) {
  std::string text;
  const std::array<std::pair<bool, const char*>, 4> kFlags{{{settings.nonblocking, "O_NONBLOCK"},
                                                            {settings.nodelay, "TCP_NODELAY"},
                                                            {settings.cork, "TCP_CORK"},
                                                            {settings.keepalive, "SO_KEEPALIVE"}}};
  for (const auto& [set, name] : kFlags)
    if (set) add(text, name);
  if (settings.linger) add(text, "SO_LINGER " + std::to_string(*settings.linger) + " s");
  const auto number = [&](const char* name, std::uint32_t value, const char* unit) {
    if (value != 0) add(text, std::string(name) + " " + std::to_string(value) + unit);
  };
  number("TCP_KEEPIDLE", settings.keep_idle, " s");
  number("TCP_KEEPINTVL", settings.keep_interval, " s");
  number("TCP_KEEPCNT", settings.keep_count, "");
  number("TCP_USER_TIMEOUT", settings.user_timeout, " ms");
  number("TCP_NOTSENT_LOWAT", settings.notsent_lowat, "");
  number("TOS", settings.tos, "");
  number("TTL", settings.hops, "");
  number("SO_PRIORITY", settings.priority, "");
  number("SO_MARK", settings.mark, "");
  number("SO_SNDBUF", settings.send_buffer, settings.send_buffer_fixed ? " (fixed)" : "");
  number("SO_RCVBUF", settings.receive_buffer, settings.receive_buffer_fixed ? " (fixed)" : "");
  // a file may have been made by anybody: nothing of it reaches the terminal as it stands
  if (!settings.congestion.empty())
    add(text, "congestion control " + printable(std::as_bytes(std::span(settings.congestion))));
  return text;
}

Json queue_json(std::span<const std::byte> queue) {
  return {{"bytes", queue.size()},
          {"head", hex(queue.first(std::min(queue.size(), kPreview)), "")}};
}

Json end_json(const Endpoint& end) { return {{"address", end.address.str()}, {"port", end.port}}; }

Json settings_json(const SocketSettings& s) {
  return {{"nonblocking", s.nonblocking},
          {"nodelay", s.nodelay},
          {"cork", s.cork},
          {"keepalive", s.keepalive},
          {"linger_s", s.linger ? Json(*s.linger) : Json()},
          {"keep_idle_s", s.keep_idle},
          {"keep_interval_s", s.keep_interval},
          {"keep_count", s.keep_count},
          {"user_timeout_ms", s.user_timeout},
          {"notsent_lowat", s.notsent_lowat},
          {"tos", s.tos},
          {"hops", s.hops},
          {"priority", s.priority},
          {"mark", s.mark},
          {"send_buffer", s.send_buffer},
          {"send_buffer_fixed", s.send_buffer_fixed},
          {"receive_buffer", s.receive_buffer},
          {"receive_buffer_fixed", s.receive_buffer_fixed},
          {"congestion", printable(std::as_bytes(std::span(s.congestion)))}};
}

Json window_json(const RepairWindow& w) {
  return {{"snd_wl1", w.snd_wl1},
          {"snd_wnd", w.snd_wnd},
          {"max_window", w.max_window},
          {"rcv_wnd", w.rcv_wnd},
          {"rcv_wup", w.rcv_wup}};
}

Json timestamps_json(const Timestamps& t) {
  return {{"tsval_now", t.tsval_now},
          {"ts_recent", t.ts_recent ? Json(*t.ts_recent) : Json()},
          {"microseconds", t.microseconds}};
}

}  // namespace

std::string headline(const Snapshot& snapshot) {
  return to_string(snapshot.state) + " " + snapshot.local.str() + " <- " + snapshot.peer.str() +
         ": " + bytes(snapshot.received.size()) + " received, " + bytes(snapshot.sent.size()) +
         " sent and not acknowledged, " + bytes(snapshot.unsent.size()) + " not sent";
}

std::string to_text(const Snapshot& snapshot) {
  const auto seq = [](Seq number) { return std::to_string(number.value); };
  Rows rows{{"state", to_string(snapshot.state) + ": " + state_in_words(snapshot.state)},
            {"this end",
             snapshot.local.str() + (snapshot.mapped ? " (an IPv6 socket that talks IPv4)" : "")},
            {"peer", snapshot.peer.str()},
            {"sequence", "received up to " + seq(snapshot.rcv_nxt) + ", acknowledged up to " +
                             seq(snapshot.snd_una) + ", sent up to " + seq(snapshot.snd_nxt)},
            {"window", window_text(snapshot)},
            {"options", options_text(snapshot)}};
  if (snapshot.timestamps) rows.push_back({"timestamps", timestamps_text(*snapshot.timestamps)});
  rows.push_back({"round trip",
                  snapshot.srtt_us == 0 ? "not known" : std::to_string(snapshot.srtt_us) + " us"});
  rows.push_back({"congestion", congestion_text(snapshot)});
  rows.push_back({"settings", snapshot.settings ? settings_text(*snapshot.settings)
                                                : "not carried: the system's own"});
  std::string text = aligned(rows);
  text += "received, not read by the application: " + bytes(snapshot.received.size()) + "\n" +
          preview(snapshot.received);
  text += "sent, not acknowledged: " + bytes(snapshot.sent.size()) + "\n" + preview(snapshot.sent);
  text += "written, not sent: " + bytes(snapshot.unsent.size()) + "\n" + preview(snapshot.unsent);
  return text;
}

Json to_json(const Snapshot& snapshot) {
  return {{"state", to_string(snapshot.state)},
          {"local", end_json(snapshot.local)},
          {"peer", end_json(snapshot.peer)},
          {"mapped", snapshot.mapped},
          {"rcv_nxt", snapshot.rcv_nxt.value},
          {"snd_una", snapshot.snd_una.value},
          {"snd_nxt", snapshot.snd_nxt.value},
          {"received", queue_json(snapshot.received)},
          {"sent", queue_json(snapshot.sent)},
          {"unsent", queue_json(snapshot.unsent)},
          {"snd_wnd", snapshot.snd_wnd},
          {"window", snapshot.window ? window_json(*snapshot.window) : Json()},
          {"mss", snapshot.mss},
          {"window_scale",
           snapshot.wscale ? Json{{"peer", snapshot.wscale->snd}, {"ours", snapshot.wscale->rcv}}
                           : Json()},
          {"timestamps", snapshot.timestamps ? timestamps_json(*snapshot.timestamps) : Json()},
          {"sack", snapshot.sack},
          {"ecn", snapshot.ecn},
          {"srtt_us", snapshot.srtt_us},
          {"snd_cwnd", snapshot.snd_cwnd},
          {"snd_ssthresh", snapshot.snd_ssthresh},
          {"settings", snapshot.settings ? settings_json(*snapshot.settings) : Json()}};
}

}  // namespace tcpmig::cli
