// SPDX-License-Identifier: MIT
// REVOKED: who is to be told that a flow is not its own, and how often.
#include <cstring>

#include "bpf/switch_rig.hpp"

using namespace rig;
using namespace packets;

namespace {

const Counts kTold{{"drop_not_owner", 1}, {"revoked", 1}}, kDropped{{"drop_not_owner", 1}},
    kLate{{"drop_late_ack", 1}};

/// Data, FIN or RST of a former owner.
Counts said(const World& w, int node, std::uint8_t flags, std::size_t payload = 0) {
  return w.s.from_node(w.tcp_out(node, {.flags = flags, .payload = Bytes(payload)})).counted;
}

}  // namespace

TEST_CASE("revoke: a former owner is told once a generation") {
  SWITCH_WORLD(w);
  w.s.revocations();
  w.s.set_flow(w.f, Rig::owned(7, 2, 77, true));
  CHECK(said(w, 2, kAck) == kLate);  // expected of a frozen kernel: no reason to speak up
  CHECK(said(w, 2, kAck, 5) == kTold);
  CHECK(said(w, 2, kAck, 5) == kDropped);
  CHECK(said(w, 2, kRst) == kDropped);
  const auto told = w.s.revocations();
  REQUIRE(told.size() == 1);
  const auto key = key_of(w.f);
  CHECK(std::memcmp(&told[0].flow, &key, sizeof key) == 0);
  CHECK(told[0].node == 2);
  CHECK(told[0].service == kService);
  CHECK(told[0].generation == 77);
  CHECK(now_ns() - told[0].seen_ns < 60000000000);
  CHECK(said(w, 3, kAck | kFin) == kTold);  // another node
  w.s.set_flow(w.f, Rig::owned(7, 2, 79, true));
  CHECK(said(w, 2, kAck | kFin) == kTold);  // another generation
  CHECK(w.s.revocations().size() == 2);
  CHECK(w.s.flow(w.f)->packets_out == 0);
}

TEST_CASE("revoke: the owner itself is never told, whatever port it speaks from") {
  SWITCH_WORLD(w);
  w.s.set_flow(w.f, Rig::owned(2, 1, 77, true));
  CHECK(w.s.from_node(w.tcp_out(2, {.source = 8081, .flags = kRst})).counted == kDropped);
}

TEST_CASE("revoke: who speaks for a connection that has no entry is told once a second") {
  SWITCH_WORLD(w);
  w.s.revocations();
  w.s.bind(w.f, 1);
  CHECK(said(w, 2, kRst) == kTold);
  CHECK(said(w, 2, kRst) == kDropped);
  const auto told = w.s.revocations();
  REQUIRE(told.size() == 1);
  CHECK(told[0].generation == 0);
  const abi::revoked_key who{key_of(w.f), 2, {}};
  auto mark = tcpmig::sys::map_lookup<abi::revoked_value>(w.s.map("revoked"), who).value();
  mark.seen_ns -= 2000000000;
  tcpmig::sys::map_update(w.s.map("revoked"), who, mark);
  CHECK(said(w, 2, kRst) == kTold);
}

TEST_CASE("revoke: while nobody reads, packets are dropped and no mark is left") {
  SWITCH_WORLD(w);
  w.s.revocations();
  const unsigned room = 65536 / (sizeof(abi::revocation) + 8);  // of a ring buffer's record
  for (unsigned generation = 1; generation <= room; generation++) {
    w.s.set_flow(w.f, Rig::owned(7, 2, generation, true));
    REQUIRE(w.s.shoot("nodes", "nodes0", w.tcp_out(2, {.flags = kRst}).bytes()).action ==
            Action::kDrop);
  }
  w.s.set_flow(w.f, Rig::owned(7, 2, room + 10, true));
  CHECK(said(w, 2, kRst) == kDropped);
  CHECK(w.s.revocations().size() >= room - 1);
  CHECK(said(w, 2, kRst) == kTold);
}
