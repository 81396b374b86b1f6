// SPDX-License-Identifier: MIT
// Segments that the lock captured go with the snapshot.
#include <arpa/inet.h>
#include <netinet/tcp.h>

#include <cstring>
#include <string>
#include <string_view>

#include "catch.hpp"
#include "conn/append_segment.hpp"

using tcpmig::Seq;
using tcpmig::Snapshot;
using tcpmig::conn::adds_nothing;
using tcpmig::conn::append_segment;

namespace {

using Bytes = std::vector<std::byte>;

struct Sent {
  std::uint32_t seq = 0;
  std::string_view data;
  std::uint32_t ack = 9'000;
  std::uint16_t window = 500;
  std::optional<std::uint32_t> tsval = 101;
  bool fin = false, rst = false, urg = false;
};

Bytes segment(const Sent& sent) {
  tcphdr tcp{};
  tcp.seq = htonl(sent.seq);
  tcp.ack_seq = htonl(sent.ack);
  tcp.ack = 1;
  tcp.fin = sent.fin;
  tcp.rst = sent.rst;
  tcp.urg = sent.urg;
  tcp.window = htons(sent.window);
  std::string options;
  if (sent.tsval) {
    options = std::string("\x01\x01\x08\x0a", 4);
    for (const std::uint32_t value : {htonl(*sent.tsval), 0U})
      options.append(reinterpret_cast<const char*>(&value), sizeof value);
  }
  tcp.doff = (sizeof tcp + options.size()) / 4 & 15U;
  const std::string whole = std::string(reinterpret_cast<const char*>(&tcp), sizeof tcp) + options +
                            std::string(sent.data);
  const auto bytes = std::as_bytes(std::span(whole));
  return {bytes.begin(), bytes.end()};
}

std::string text(const Snapshot& snapshot) {
  return {reinterpret_cast<const char*>(snapshot.received.data()), snapshot.received.size()};
}

/// "head" has been received; the numbers wrap soon after.
Snapshot snapshot() {
  Snapshot s;
  s.rcv_nxt = {0xfffffffeU};
  s.snd_una = s.snd_nxt = {9'000};
  for (const char c : std::string_view("head")) s.received.push_back(static_cast<std::byte>(c));
  s.wscale = {7, 7};
  s.timestamps = {.tsval_now = 1, .ts_recent = 100};
  s.snd_wnd = 1;
  s.window = tcpmig::RepairWindow{};
  return s;
}

}  // namespace

TEST_CASE("a captured segment goes with the snapshot as if it had come before the freeze") {
  Snapshot s = snapshot();
  REQUIRE(append_segment(s, segment({.seq = 0xfffffffeU, .data = "body"})));
  CHECK(text(s) == "headbody");
  CHECK(s.rcv_nxt == Seq{2});
  CHECK(s.snd_wnd == 500U << 7);
  CHECK(s.window->snd_wnd == 500U << 7);
  CHECK(s.window->max_window == 500U << 7);
  CHECK(s.window->snd_wl1 == 0xfffffffeU);
  CHECK(s.timestamps->ts_recent == 101);
  REQUIRE(append_segment(s, segment({.seq = 0, .data = "dyes"})));  // overlaps by two
  CHECK(text(s) == "headbodyes");
  CHECK(s.rcv_nxt == Seq{4});
}

TEST_CASE("without timestamps a segment without options goes with the snapshot") {
  Snapshot s = snapshot();
  s.timestamps.reset();
  s.wscale.reset();
  CHECK_FALSE(append_segment(s, segment({.seq = 0xfffffffeU, .data = "body"})));
  REQUIRE(append_segment(s, segment({.seq = 0xfffffffeU, .data = "body", .tsval = {}})));
  CHECK(s.snd_wnd == 500);
}

TEST_CASE("what TCP has to judge does not go with the snapshot") {
  const std::uint32_t next = 0xfffffffeU;
  const Sent others[] = {
      {.seq = next + 1, .data = "gap"},
      {.seq = next - 4, .data = "head"},  // all there
      {.seq = next, .data = ""},
      {.seq = next, .data = "body", .ack = 9'001},  // of something never sent
      {.seq = next, .data = "body", .ack = 8'999},
      {.seq = next, .data = "body", .tsval = 99},  // PAWS
      {.seq = next, .data = "body", .tsval = {}},
      {.seq = next, .data = "body", .fin = true},
      {.seq = next, .data = "body", .rst = true},
      {.seq = next, .data = "body", .urg = true},
  };
  for (const Sent& sent : others) {
    CAPTURE(sent.seq - next, sent.data, sent.ack, sent.fin, sent.rst, sent.urg);
    Snapshot s = snapshot();
    CHECK_FALSE(append_segment(s, segment(sent)));
    CHECK(s == snapshot());
  }
  Snapshot s = snapshot();
  const Bytes whole = segment({.seq = next, .data = "body"});
  for (std::size_t size = 0; size <= 32; ++size)  // cut off within the header, or behind it
    CHECK_FALSE(append_segment(s, std::span(whole).first(size)));
  s.state = tcpmig::TcpState::kCloseWait;
  CHECK_FALSE(append_segment(s, whole));
  s = snapshot();
  s.timestamps->ts_recent.reset();  // then nobody knows what is old
  CHECK_FALSE(append_segment(s, whole));
}

TEST_CASE("what is in the snapshot need not follow it, all else does") {
  const Seq s = snapshot().rcv_nxt;
  const std::uint32_t next = s.value;
  CHECK(adds_nothing(s, segment({.seq = next - 4, .data = "head"})));
  CHECK_FALSE(adds_nothing(s, segment({.seq = next - 4, .data = "headb"})));
  CHECK_FALSE(adds_nothing(s, segment({.seq = next, .data = "b"})));
  CHECK_FALSE(adds_nothing(s, segment({.seq = next, .data = ""})));  // a window, perhaps
  CHECK_FALSE(adds_nothing(s, segment({.seq = next - 4, .data = "head", .fin = true})));
  CHECK_FALSE(adds_nothing(s, segment({.seq = next - 4, .data = "head", .rst = true})));
  CHECK_FALSE(adds_nothing(s, {}));
}
