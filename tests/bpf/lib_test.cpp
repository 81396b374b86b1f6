// SPDX-License-Identifier: MIT
// Arithmetic of bpf/lib on the host: checksums against adding up anew, VPAs there and back.
#include <cstring>
#include <random>
#include <vector>

#include "bpf/lib_host.hpp"
#include "catch.hpp"

namespace abi = tcpmig::abi;

namespace {

/// In memory order, as the incremental functions work.
std::uint16_t sum_of(const std::vector<std::uint16_t>& words) {
  std::uint64_t sum = 0;
  for (const auto word : words) sum += word;
  while (sum >> 16) sum = (sum & 0xffff) + (sum >> 16);
  return static_cast<std::uint16_t>(~sum);
}

abi::switch_settings settings() {
  abi::switch_settings s{};
  s.vpa4_prefix[0] = 100;
  s.vpa4_prefix[1] = 64;
  s.vpa4_prefix_length = 10;
  s.vpa6_prefix[0] = 0xfd;
  s.vpa6_prefix[1] = 0x7c;
  return s;
}

}  // namespace

TEST_CASE("checksum: a change gives what adding up anew gives") {
  std::mt19937 random(1);
  const std::uint16_t corners[] = {0, 1, 0xfffe, 0xffff};
  for (int round = 0; round < 200000; round++) {
    std::vector<std::uint16_t> words(8);
    for (auto& word : words)
      word = random() % 3 == 0 ? corners[random() % 4] : static_cast<std::uint16_t>(random());
    words[7] = static_cast<std::uint16_t>(words[7] | 1);  // a header is never all zero
    const std::uint16_t before = sum_of(words);
    const std::uint16_t to =
        random() % 2 ? corners[random() % 4] : static_cast<std::uint16_t>(random());
    const std::uint32_t from32 = words[0] | static_cast<std::uint32_t>(words[1]) << 16;
    const auto to32 = static_cast<std::uint32_t>(random() % 5 ? random() : 0xffffffff);
    const std::uint64_t change =
        abi::csum_change_32(from32, to32) + abi::csum_change_16(words[2], to);
    words[0] = static_cast<std::uint16_t>(to32);
    words[1] = static_cast<std::uint16_t>(to32 >> 16);
    words[2] = to;
    INFO("round " << round);
    REQUIRE(abi::csum_apply(before, change) == sum_of(words));
    REQUIRE(abi::csum_apply(before, abi::csum_fold_32(change)) == sum_of(words));
  }
}

TEST_CASE("checksum: UDP's zero") {
  CHECK(abi::csum_apply_udp(0, 12345) == 0);
  CHECK(abi::csum_apply(1, abi::csum_change_16(5, 6)) == 0);
  CHECK(abi::csum_apply_udp(1, abi::csum_change_16(5, 6)) == 0xffff);
}

TEST_CASE("VPA: there and back, for every node and some services") {
  const abi::switch_settings s = settings();
  for (const auto family : {std::uint8_t{4}, std::uint8_t{6}}) {
    for (unsigned node = 1; node < (family == 4 ? 256U : 1024U); node++) {
      for (const unsigned service : {1U, 2U, 255U, 256U, 8191U, 16383U}) {
        alignas(8) abi::ip_address address{};
        abi::vpa_encode(&s, family, node, service, &address);
        REQUIRE(abi::vpa_contains(&s, family, &address));
        const abi::vpa vpa = abi::vpa_decode(&s, family, &address);
        REQUIRE(vpa.node == node);
        REQUIRE(vpa.service == service);
        alignas(8) abi::ip_address block{};
        abi::vpa_encode(&s, family, node, 0, &block);
        REQUIRE(abi::vpa_block_contains(&block, family, &address));
        REQUIRE(abi::vpa_block_service(family, &address) == service);
        abi::vpa_encode(&s, family, node - 1, 0, &block);
        REQUIRE_FALSE(abi::vpa_block_contains(&block, family, &address));
      }
    }
  }
}

TEST_CASE("VPA: what is inside the prefix but names no node or service") {
  const abi::switch_settings s = settings();
  alignas(8) abi::ip_address address{};
  for (const auto family : {std::uint8_t{4}, std::uint8_t{6}}) {
    abi::vpa_encode(&s, family, 3, 0, &address);
    CHECK(abi::vpa_contains(&s, family, &address));
    CHECK(abi::vpa_decode(&s, family, &address).node == 0);
  }
  abi::vpa_encode(&s, 6, 3, 4, &address);
  address.bytes[9] = 1;
  CHECK(abi::vpa_contains(&s, 6, &address));
  CHECK(abi::vpa_decode(&s, 6, &address).node == 0);
  address.bytes[7] = 1;
  CHECK_FALSE(abi::vpa_contains(&s, 6, &address));
  abi::vpa_encode(&s, 4, 3, 4, &address);
  address.bytes[13] = 128;  // 100.128.0.0 is the first address after 100.64.0.0/10
  CHECK_FALSE(abi::vpa_contains(&s, 4, &address));
}
