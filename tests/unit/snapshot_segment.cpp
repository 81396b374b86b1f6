// SPDX-License-Identifier: MIT
#include "conn/segment.hpp"

#include <cstdint>
#include <vector>

#include "catch.hpp"

using tcpmig::conn::give_packets;
using tcpmig::conn::is_intact;
using tcpmig::sys::Address;
using tcpmig::sys::Endpoint;

namespace {

using Bytes = std::vector<std::byte>;

/// A TCP header of `header` bytes, sequence number 0xfffffff0, flags FIN PSH ACK, wrong ports and
/// checksum, and `data` bytes.
Bytes segment(std::size_t header, std::size_t data) {
  Bytes bytes(header + data);
  for (std::size_t i = 0; i < bytes.size(); ++i) bytes[i] = static_cast<std::byte>(i * 7 + i / 256);
  for (const int i : {4, 5, 6}) bytes[static_cast<std::size_t>(i)] = std::byte{0xff};
  bytes[7] = std::byte{0xf0};
  bytes[12] = static_cast<std::byte>(header / 4 << 4);
  bytes[13] = std::byte{0x19};
  return bytes;
}

unsigned word(const Bytes& bytes, std::size_t offset) {
  return std::to_integer<unsigned>(bytes.at(offset)) << 8 |
         std::to_integer<unsigned>(bytes.at(offset + 1));
}

unsigned fold(std::uint64_t sum) {
  while (sum >> 16 != 0) sum = (sum & 0xffff) + (sum >> 16);
  return static_cast<unsigned>(sum);
}

std::uint64_t sum_of(const Bytes& bytes, std::size_t begin, std::size_t end) {
  std::uint64_t sum = 0;
  for (std::size_t i = begin; i < end; ++i)
    sum += std::to_integer<std::uint64_t>(bytes[i]) << (i % 2 == begin % 2 ? 8 : 0);
  return sum;
}

std::vector<Bytes> packets_of(const std::string& from, const std::string& to,
                              std::span<const std::byte> bytes) {
  std::vector<Bytes> packets;
  REQUIRE(give_packets(Endpoint{Address::parse(from).value(), 0x1234},
                       Endpoint{Address::parse(to).value(), 0x0050}, bytes,
                       [&](auto packet) { packets.emplace_back(packet.begin(), packet.end()); }));
  return packets;
}

}  // namespace

TEST_CASE("a segment becomes an IPv4 packet whose checksums are right, odd length or even") {
  for (const std::size_t data : {0, 1, 2, 999}) {
    CAPTURE(data);
    const Bytes given = segment(32, data);
    const auto packets = packets_of("198.51.100.1", "192.0.2.10", given);
    REQUIRE(packets.size() == 1);
    const Bytes& packet = packets[0];
    REQUIRE(packet.size() == 20 + given.size());
    CHECK(word(packet, 0) == 0x4500);
    CHECK(word(packet, 2) == packet.size());
    CHECK(fold(sum_of(packet, 0, 20)) == 0xffff);
    CHECK(fold(sum_of(packet, 12, 20) + 6 + given.size() + sum_of(packet, 20, packet.size())) ==
          0xffff);
    CHECK(word(packet, 20) == 0x1234);
    CHECK(word(packet, 22) == 0x0050);
    CHECK(std::equal(packet.begin() + 24, packet.begin() + 36,
                     given.begin() + 4));  // all but ports and checksum
    CHECK(std::equal(packet.begin() + 38, packet.end(), given.begin() + 18));
  }
}

TEST_CASE("a segment becomes an IPv6 packet") {
  const Bytes given = segment(20, 77);
  const auto packets = packets_of("2001:db8::1", "2001:db8::2", given);
  REQUIRE(packets.size() == 1);
  const Bytes& packet = packets[0];
  CHECK(word(packet, 0) == 0x6000);
  CHECK(word(packet, 4) == given.size());
  CHECK(word(packet, 6) == 0x0640);
  CHECK(fold(sum_of(packet, 8, 40) + 6 + given.size() + sum_of(packet, 40, packet.size())) ==
        0xffff);
}

TEST_CASE("a segment that does not fit an IP packet is split, FIN and PSH on the last") {
  const Bytes given = segment(32, 130'000);
  const auto packets = packets_of("198.51.100.1", "192.0.2.10", given);
  REQUIRE(packets.size() == 3);
  Bytes data;
  for (std::size_t i = 0; i < packets.size(); ++i) {
    const Bytes& packet = packets[i];
    const std::uint32_t expected = 0xffff'fff0 + static_cast<std::uint32_t>(data.size());
    CHECK((word(packet, 24) << 16 | word(packet, 26)) == expected);
    CHECK(std::to_integer<int>(packet[33]) == (i == 2 ? 0x19 : 0x10));
    CHECK(fold(sum_of(packet, 12, 20) + 6 + packet.size() - 20 +
               sum_of(packet, 20, packet.size())) == 0xffff);
    data.insert(data.end(), packet.begin() + 52, packet.end());
  }
  CHECK(std::equal(data.begin(), data.end(), given.begin() + 32, given.end()));
}

TEST_CASE("what is no TCP segment is not given") {
  const Endpoint end{Address::parse("192.0.2.1").value(), 1};
  const auto never = [](auto) { FAIL("given"); };
  Bytes short_one = segment(20, 0);
  short_one.resize(19);
  CHECK(!give_packets(end, end, short_one, never));
  CHECK(!give_packets(end, end, {}, never));
  Bytes bad_offset = segment(20, 10);
  bad_offset[12] = std::byte{0x40};
  CHECK(!give_packets(end, end, bad_offset, never));
  bad_offset[12] = std::byte{0xf0};
  CHECK(!give_packets(end, end, bad_offset, never));
}

TEST_CASE("a segment is intact when its checksum is right, or partial") {
  for (const auto& [from, to, ip] : {std::tuple("198.51.100.1", "192.0.2.10", 20UL),
                                     std::tuple("2001:db8::1", "2001:db8::2", 40UL)})
    for (const std::size_t data : {0, 1, 2, 999}) {
      CAPTURE(from, data);
      const Endpoint source{Address::parse(from).value(), 0x1234};
      const Endpoint target{Address::parse(to).value(), 0x0050};
      const Bytes packet = packets_of(from, to, segment(32, data))[0];
      Bytes whole(packet.begin() + static_cast<std::ptrdiff_t>(ip), packet.end());
      CHECK(is_intact(source, target, whole));
      CHECK_FALSE(is_intact(target, {Address::parse("192.0.2.11").value(), 1}, whole));
      whole.back() ^= std::byte{4};
      CHECK_FALSE(is_intact(source, target, whole));
      const std::size_t addresses = ip == 20 ? 12 : 8;
      const unsigned pseudo = fold(sum_of(packet, addresses, ip) + 6 + whole.size());
      whole[16] = static_cast<std::byte>(pseudo >> 8);
      whole[17] = static_cast<std::byte>(pseudo & 0xff);
      CHECK(is_intact(source, target, whole));
    }
  CHECK_FALSE(is_intact({}, {}, Bytes(19)));
}
