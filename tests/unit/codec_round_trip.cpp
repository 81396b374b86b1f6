// SPDX-License-Identifier: MIT
#include <algorithm>
#include <stdexcept>

#include <tcpmig/codec.hpp>

#include "catch.hpp"
#include "sys/address.hpp"

using tcpmig::decode;
using tcpmig::DecodeError;
using tcpmig::encode;
using tcpmig::RepairWindow;
using tcpmig::Seq;
using tcpmig::Snapshot;
using tcpmig::SocketSettings;
using tcpmig::TcpState;
using tcpmig::Timestamps;
using tcpmig::WindowScale;
using tcpmig::sys::Address;

namespace {

std::vector<std::byte> bytes(std::initializer_list<int> values) {
  std::vector<std::byte> result;
  for (const int value : values) result.push_back(static_cast<std::byte>(value));
  return result;
}

Snapshot full() {
  Snapshot snapshot;
  snapshot.local = {Address::parse("2001:db8::1").value(), 443};
  snapshot.peer = {Address::parse("2001:db8::2").value(), 54'321};
  snapshot.rcv_nxt = Seq{0xffff'fff0};
  snapshot.snd_una = Seq{0xffff'ffff};
  snapshot.snd_nxt = Seq{1};
  snapshot.received = bytes({1, 2, 3, 0xff});
  snapshot.sent = bytes({4, 5});
  snapshot.unsent = bytes({6});
  snapshot.window =
      RepairWindow{.snd_wl1 = 1, .snd_wnd = 2, .max_window = 3, .rcv_wnd = 4, .rcv_wup = 5};
  snapshot.snd_wnd = 65'536;
  snapshot.mss = 1'460;
  snapshot.wscale = WindowScale{.snd = 14, .rcv = 7};
  snapshot.timestamps = Timestamps{.tsval_now = 8, .ts_recent = 9, .microseconds = true};
  snapshot.sack = true;
  snapshot.ecn = true;
  snapshot.state = TcpState::kClosing;
  snapshot.settings = SocketSettings{.nonblocking = true,
                                     .nodelay = true,
                                     .cork = true,
                                     .keepalive = true,
                                     .linger = 10,
                                     .keep_idle = 11,
                                     .keep_interval = 12,
                                     .keep_count = 13,
                                     .user_timeout = 14,
                                     .notsent_lowat = 15,
                                     .tos = 0xb8,
                                     .hops = 63,
                                     .priority = 6,
                                     .mark = 16,
                                     .send_buffer = 17,
                                     .receive_buffer = 18,
                                     .send_buffer_fixed = true,
                                     .receive_buffer_fixed = true,
                                     .congestion = "cubic"};
  snapshot.srtt_us = 1'234;
  snapshot.snd_cwnd = 40;
  snapshot.snd_ssthresh = 30;
  return snapshot;
}

Snapshot ipv4() {
  Snapshot snapshot;
  snapshot.local = {Address::parse("192.0.2.1").value(), 80};
  snapshot.peer = {Address::parse("198.51.100.7").value(), 1};
  return snapshot;
}

DecodeError error_of(std::span<const std::byte> encoded) {
  const auto result = decode(encoded);
  REQUIRE(!result.has_value());
  return result.error();
}

/// The encoded full() with one byte changed.
std::vector<std::byte> changed(std::size_t offset, int value) {
  auto encoded = encode(full());
  encoded.at(offset) = static_cast<std::byte>(value);
  return encoded;
}

constexpr std::size_t kHeader = 176;

}  // namespace

TEST_CASE("a snapshot comes back as it was") {
  CHECK(decode(encode(full())).value() == full());
  CHECK(decode(encode(ipv4())).value() == ipv4());
}

TEST_CASE("every option comes back, alone and absent") {
  for (unsigned mask = 0; mask < 64; ++mask) {
    Snapshot snapshot = full();
    if ((mask & 1) == 0) snapshot.window.reset();
    if ((mask & 2) == 0) snapshot.wscale.reset();
    if ((mask & 4) == 0) snapshot.timestamps->ts_recent.reset();
    if ((mask & 8) == 0) snapshot.timestamps->microseconds = false;
    if ((mask & 16) == 0) snapshot.timestamps.reset();
    snapshot.sack = (mask & 32) != 0;
    snapshot.ecn = !snapshot.sack;
    if (snapshot.sack) snapshot.settings.reset();
    if (!snapshot.sack) snapshot.settings->linger.reset();
    if (snapshot.ecn) snapshot.state = TcpState::kEstablished;
    CAPTURE(mask);
    CHECK(decode(encode(snapshot)).value() == snapshot);
  }
}

TEST_CASE("the layout is the one that is documented") {
  const auto encoded = encode(full());
  REQUIRE(encoded.size() == kHeader + 4 + 2 + 1);
  const auto at = [&](std::size_t offset, std::initializer_list<int> expected) {
    return std::ranges::equal(std::span(encoded).subspan(offset, expected.size()), bytes(expected));
  };
  CHECK(at(0, {'T', 'C', 'P', 'S', 2, 6, 0xff, 0x7f}));
  CHECK(at(8, {0x20, 0x01, 0x0d, 0xb8}));
  CHECK(at(40, {0x01, 0xbb, 0xd4, 0x31}));
  CHECK(at(44, {0xff, 0xff, 0xff, 0xf0, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 1}));
  CHECK(at(56, {0, 1, 0, 0, 0x05, 0xb4, 14, 7}));
  CHECK(at(64, {0, 0, 0, 8, 0, 0, 0, 9, 0, 0, 0x04, 0xd2}));
  CHECK(at(76, {0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0, 3, 0, 0, 0, 4, 0, 0, 0, 5}));
  CHECK(at(96, {11, 0xb8, 63, 0}));
  CHECK(at(100, {0, 0, 0, 10, 0, 0, 0, 11, 0, 0, 0, 12, 0, 0, 0, 13}));
  CHECK(at(116, {0, 0, 0, 14, 0, 0, 0, 15, 0, 0, 0, 6, 0, 0, 0, 16}));
  CHECK(at(132, {0, 0, 0, 17, 0, 0, 0, 18}));
  CHECK(at(140, {'c', 'u', 'b', 'i', 'c', 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}));
  CHECK(at(156, {0, 0, 0, 40, 0, 0, 0, 30}));
  CHECK(at(164, {0, 0, 0, 4, 0, 0, 0, 2, 0, 0, 0, 1}));
  CHECK(at(kHeader, {1, 2, 3, 0xff, 4, 5, 6}));
}

TEST_CASE("a snapshot that ends anywhere before its end is truncated") {
  const auto encoded = encode(full());
  for (std::size_t length = 0; length < encoded.size(); ++length) {
    CAPTURE(length);
    CHECK(error_of(std::span(encoded).first(length)) == DecodeError::kTruncated);
  }
}

TEST_CASE("each error") {
  CHECK(error_of(changed(0, 'X')) == DecodeError::kMagic);
  CHECK(error_of(changed(4, 1)) == DecodeError::kVersion);
  CHECK(error_of(changed(5, 4)) == DecodeError::kField);  // addresses are IPv6
  CHECK(error_of(changed(5, 5)) == DecodeError::kField);
  CHECK(error_of(changed(7, 127 - 1)) == DecodeError::kField);  // no window, but its bytes
  CHECK(error_of(changed(7, 127 - 2)) == DecodeError::kField);  // no scale, but its bytes
  CHECK(error_of(changed(7, 127 - 4)) == DecodeError::kField);  // ts_recent without timestamps
  CHECK(error_of(changed(7, 127 - 8)) == DecodeError::kField);  // no ts_recent, but its bytes
  CHECK(error_of(changed(62, 15)) == DecodeError::kField);
  CHECK(error_of(changed(63, 15)) == DecodeError::kField);
  CHECK(error_of(changed(6, 0xef)) == DecodeError::kField);  // no linger, but its bytes
  CHECK(error_of(changed(6, 0xfe)) == DecodeError::kField);  // no settings, but their bytes
  CHECK(error_of(changed(7, 0xff)) == DecodeError::kField);  // mapped, and IPv6
  for (const int state : {0, 2, 3, 6, 7, 10, 12}) {
    CAPTURE(state);
    CHECK(error_of(changed(96, state)) == DecodeError::kField);
  }
  CHECK(error_of(changed(96, 5)) ==
        DecodeError::kField);  // FIN_WAIT2, and bytes to be acknowledged
  CHECK(error_of(changed(99, 1)) == DecodeError::kField);     // a field that has no use yet
  CHECK(error_of(changed(146, 'x')) == DecodeError::kField);  // a byte behind the end of the name
  CHECK(error_of(changed(171, 1)) == DecodeError::kField);    // sent is not [snd_una, snd_nxt)
  CHECK(error_of(changed(164, 0x40)) == DecodeError::kTooLarge);
  CHECK(error_of(changed(168, 0x40)) == DecodeError::kTooLarge);
  CHECK(error_of(changed(172, 0x40)) == DecodeError::kTooLarge);
  auto longer = encode(full());
  longer.push_back(std::byte{0});
  CHECK(error_of(longer) == DecodeError::kTrailing);
}

TEST_CASE("a length at the limit needs the bytes, one above is too large") {
  auto encoded = encode(ipv4());
  const auto set_received = [&](std::uint32_t length) {
    for (unsigned i = 0; i < 4; ++i)
      encoded[164 + i] = static_cast<std::byte>(length >> (24 - 8 * i));
  };
  set_received(tcpmig::kMaxQueueBytes);
  CHECK(error_of(encoded) == DecodeError::kTruncated);
  set_received(tcpmig::kMaxQueueBytes + 1);
  CHECK(error_of(encoded) == DecodeError::kTooLarge);
}

TEST_CASE("every single byte changed decodes to what encodes to it, or not at all") {
  const auto original = encode(full());
  for (std::size_t offset = 0; offset < original.size(); ++offset)
    for (const int value : {0, 1, 4, 14, 15, 127, 128, 255}) {
      const auto encoded = changed(offset, value);
      const auto snapshot = decode(encoded);
      if (snapshot) CHECK(encode(*snapshot) == encoded);
    }
}

TEST_CASE("every error has words") {
  for (const auto error : {DecodeError::kTruncated, DecodeError::kMagic, DecodeError::kVersion,
                           DecodeError::kField, DecodeError::kTooLarge, DecodeError::kTrailing})
    CHECK(to_string(error) != "unknown error");
}

TEST_CASE("what contradicts itself is not encoded") {
  Snapshot snapshot = full();
  SECTION("families") { snapshot.peer = ipv4().peer; }
  SECTION("scale") { snapshot.wscale->rcv = 15; }
  SECTION("sent") { snapshot.sent.clear(); }
  SECTION("length") { snapshot.unsent.resize(tcpmig::kMaxQueueBytes + 1); }
  CHECK_THROWS_AS(encode(snapshot), std::invalid_argument);
}
