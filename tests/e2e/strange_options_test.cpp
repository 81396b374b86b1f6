// SPDX-License-Identifier: MIT
// Clients that negotiate less, more or other things than a Linux client does: moved with exactly
// what they have, or relayed, and never a byte wrong.
#include <algorithm>

#include "catch.hpp"
#include "e2e/strange.hpp"

using namespace tcpmig;
using namespace tcpmig::e2e;

namespace {

std::size_t largest_payload(const RawClient& client) {
  std::size_t largest = 0;
  for (const Segment& segment : client.seen()) largest = std::max(largest, segment.payload.size());
  return largest;
}

/// What both owners of the connection said fits what was negotiated.
void check_options(const RawClient& client, const Shape& shape) {
  std::uint32_t last = client.syn_ack().timestamps.value_or(std::pair{0U, 0U}).first;
  for (const Segment& segment : client.seen()) {
    INFO(segment.str());
    CHECK(segment.timestamps.has_value() == shape.timestamps);
    if (!shape.sack) CHECK(segment.sack.empty());
    if (!segment.timestamps) continue;
    const auto [tsval, tsecr] = *segment.timestamps;
    CHECK(static_cast<std::int32_t>(tsval - last) >= 0);  // never back, whoever speaks
    CHECK(static_cast<std::int32_t>(client.tsval_now() - tsecr) >= 0);
    CHECK(client.tsval_now() - tsecr < 60'000);
    last = tsval;
  }
  const std::size_t overhead = shape.timestamps ? 12 : 0;
  const std::size_t mss = shape.mss.value_or(client.local().address.is_ipv4() ? 536 : 1220);
  CHECK(largest_payload(client) <= mss - overhead);
  CHECK(client.syn_ack().wscale.has_value() == shape.wscale.has_value());
  CHECK(client.syn_ack().sack_permitted == shape.sack);
}

/// Two requests on one connection; the second can only be the server's.
void check_download(Strange& world, const Shape& shape, bool ipv6) {
  RawClient client(*world.network, vip(ipv6), shape);
  INFO((ipv6 ? "v6\n" : "v4\n") << world.lab.logs());
  const auto before = world.committed();
  REQUIRE(client.connect());
  client.send(get("/1k"));
  CHECK(is_file(client.receive(), world.small));
  client.send(get("/300k"));
  CHECK(is_file(client.receive(), world.large));
  CHECK(client.close());
  CHECK_FALSE(client.reset());
  check_options(client, shape);
  CHECK(world.committed() == before + 1);
}

/// The same for one that is not moved; one request: the relay has the server end it.
void check_relayed(Strange& world, const Shape& shape, bool ipv6, const std::string& reason) {
  RawClient client(*world.network, vip(ipv6), shape);
  INFO((ipv6 ? "v6\n" : "v4\n") << world.lab.logs());
  const auto before = world.relayed(reason);
  REQUIRE(client.connect());
  client.send(get("/300k"));
  CHECK(is_file(client.receive(), world.large));
  CHECK(client.wait_for_end());
  CHECK(client.close());
  CHECK_FALSE(client.reset());
  check_options(client, shape);
  CHECK(world.relayed(reason) == before + 1);
}

constexpr std::uint8_t kEct0 = 2, kCe = 3, kEcnBits = 3;

}  // namespace

TEST_CASE("raw clients without SACK, timestamps, window scaling, each alone and together") {
  const auto datapath = GENERATE(config::Datapath::kTc, config::Datapath::kXdp);
  Strange world({.servers = 1, .datapath = datapath});
  if (skipped(world.lab)) return;
  for (const bool ipv6 : {false, true})
    for (unsigned offered = 0; offered < 8; ++offered) {
      Shape shape{.sack = (offered & 1) != 0, .timestamps = (offered & 2) != 0};
      if ((offered & 4) == 0) shape.wscale.reset();
      INFO("SACK " << shape.sack << ", timestamps " << shape.timestamps << ", window scale "
                   << shape.wscale.has_value());
      check_download(world, shape, ipv6);
    }
}

TEST_CASE("raw clients with every MSS: moved as far as the kernel resumes it, else relayed") {
  Strange world;
  if (skipped(world.lab)) return;
  // Kernel resume takes none below 536 and 1220 (bpf_sk_assign_tcp_reqsk); TCP_REPAIR takes all.
  const auto check_small = [&](const Shape& shape, bool ipv6) {
    if (tests_repair()) return check_download(world, shape, ipv6);
    check_relayed(world, shape, ipv6, "no server would take it");
  };
  for (const bool timestamps : {false, true}) {
    const auto with = [&](int mss) {
      return Shape{.mss = static_cast<std::uint16_t>(mss), .timestamps = timestamps};
    };
    for (const int mss : {536, 537, 1000, 1460, 9000}) check_download(world, with(mss), false);
    for (const int mss : {1220, 1440, 9000}) check_download(world, with(mss), true);
    for (const int mss : {100, 400, 535}) check_small(with(mss), false);
    for (const int mss : {400, 1219}) check_small(with(mss), true);
  }
  // no option at all means 536 or 1220 (RFC 9293, 3.7.1)
  check_download(world, {.mss = {}}, false);
  check_download(world, {.mss = {}}, true);
  CHECK(world.dispatcher("refused", "the server's kernel refused (errno in detail)") ==
        (tests_repair() ? 0 : 10));
}

TEST_CASE("raw clients with window scale 0 and 14") {
  Strange world;
  if (skipped(world.lab)) return;
  for (const bool ipv6 : {false, true})
    for (const int wscale : {0, 1, 14}) {
      INFO("window scale " << wscale);
      const auto scale = static_cast<std::uint8_t>(wscale);
      check_download(world, {.wscale = scale}, ipv6);
      check_download(world, {.wscale = scale, .window = 1 << 20}, ipv6);
    }
}

TEST_CASE("a raw client that negotiated ECN has it echoed after the transfer") {
  Strange world;
  if (skipped(world.lab)) return;
  set_in(world.lab, "server1", "tcp_ecn", "1");
  for (const bool ipv6 : {false, true}) {
    INFO((ipv6 ? "v6\n" : "v4\n") << world.lab.logs());
    RawClient client(*world.network, vip(ipv6), {.ecn = true});
    const auto before = world.committed();
    client.tos = kEct0;
    REQUIRE(client.connect());
    CHECK(client.syn_ack().has(kEce));
    client.send(get("/1k"));
    CHECK(is_file(client.receive(), world.small));
    CHECK(world.committed() == before + 1);
    for (const Segment& segment : client.seen())
      if (!segment.payload.empty()) CHECK((segment.tos & kEcnBits) == kEct0);
    const std::size_t echoes = client.count(kEce);
    client.tos = kCe;  // a router between was congested
    client.send(get("/1k"));
    CHECK(is_file(client.receive(), world.small));
    CHECK(client.count(kEce) > echoes);
    CHECK(client.close());
  }
}

TEST_CASE("sequence numbers of a raw client that wrap in the request, and at its edges") {
  Strange world;
  if (skipped(world.lab)) return;
  const auto length = static_cast<std::uint32_t>(get("/1k").size());
  for (const bool ipv6 : {false, true})
    for (const std::uint32_t before_wrap :
         {0U, 1U, 2U, length / 2, length, length + 1, length + 2}) {
      INFO("wraps after " << before_wrap);
      check_download(world, {.isn = 0U - before_wrap, .tsval = 0U - 3}, ipv6);
      check_download(world, {.isn = 0x8000'0000U - before_wrap, .tsval = 0x7fff'ffffU}, ipv6);
    }
}
