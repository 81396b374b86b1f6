// SPDX-License-Identifier: MIT
// A switch without its table (RECOVERING): what waits, and how the nodes give it back by RENEW. And
// the heartbeat by which they see that it is another boot.
#include "bpf/switch_rig.hpp"

using namespace rig;
using namespace packets;

namespace {

constexpr unsigned kGeneration = 1000, kBoot = 0xb007;
const Counts kWaits{{"drop_recovering", 1}}, kAnnounced{{"announced", 1}};

constexpr std::uint64_t kSecond = 1'000'000'000;

/// `left`: seconds until it has recovered; negative: it has, so long ago.
void recover(const World& w, int left = 3600) {
  w.s.set_settings([&](abi::switch_settings& settings) {
    settings.boot = kBoot;
    settings.recovering_until_ns = left > 0
                                       ? now_ns() + static_cast<std::uint64_t>(left) * kSecond
                                       : now_ns() - static_cast<std::uint64_t>(-left) * kSecond;
  });
}

Counts renew(const World& w, unsigned sender, unsigned generation) {
  const Result r =
      w.s.from_node(control(w.f, transfer(w.f, abi::WIRE_RENEW, sender, 0, generation)));
  CHECK(r.action == Action::kDrop);
  return r.counted;
}

Counts from_client(const World& w, std::uint8_t flags) {
  return w.s.from_client(w.tcp_in({.flags = flags})).counted;
}

abi::wire_header heartbeat(const Family& f, unsigned sender, unsigned instance,
                           std::uint8_t flags = 0) {
  abi::wire_header header = transfer(f, abi::WIRE_HEARTBEAT, sender, 0, 0);
  header.detail = htonl(instance);
  header.flags = flags;
  return header;
}

abi::node_liveness liveness(const World& w, std::uint32_t node) {
  return tcpmig::sys::map_lookup<abi::node_liveness>(w.s.map("liveness"), node).value();
}

}  // namespace

TEST_CASE("recovery: packets of flows that are not known wait, a new connection does not") {
  SWITCH_WORLD(w);
  recover(w);
  CHECK(from_client(w, kAck) == kWaits);
  CHECK(from_client(w, kRst) == kWaits);
  CHECK(from_client(w, kFin | kAck) == kWaits);
  CHECK_FALSE(w.s.bound(w.f).has_value());
  // nobody speaks for such a flow, and nobody is told that it is not his
  w.s.revocations();
  for (const int node : {1, 2})
    CHECK(w.s.from_node(w.tcp_out(node, {.flags = kAck, .payload = Bytes(5)})).counted == kWaits);
  CHECK(w.s.revocations().empty());
  CHECK(from_client(w, kSyn) == Counts{{"to_dispatcher", 1}});
  CHECK(from_client(w, kAck) == Counts{{"to_dispatcher", 1}});
  recover(w, -1);
  tcpmig::sys::map_delete(w.s.map("affinity"), key_of(w.f));
  CHECK(from_client(w, kAck) == Counts{{"to_dispatcher", 1}});
}

TEST_CASE("recovery: a transfer of a connection that was not seen to begin is not answered") {
  SWITCH_WORLD(w);
  recover(w);
  const auto commit = [&] {
    return w.s.from_node(control(w.f, transfer(w.f, abi::WIRE_COMMIT, 1, 2, kGeneration))).counted;
  };
  CHECK(commit() == kWaits);
  CHECK_FALSE(w.s.flow(w.f).has_value());
  w.s.bind(w.f, 1);
  CHECK(commit() == Counts{{"committed", 1}});
}

TEST_CASE("recovery: a transfer that began before the table was lost makes no entry") {
  SWITCH_WORLD(w);
  recover(w, -1);
  const auto commit = [&](unsigned boot) {
    abi::wire_header header = transfer(w.f, abi::WIRE_COMMIT, 1, 2, kGeneration);
    header.detail = htonl(boot);
    return w.s.from_node(control(w.f, header));
  };
  const Result refused = commit(kBoot - 1);
  CHECK(refused.counted == Counts{{"refused_other_boot", 1}});
  CHECK(header_of(refused.view()).reason == abi::REASON_OTHER_BOOT);
  CHECK(ntohl(header_of(refused.view()).detail) == kBoot);
  CHECK_FALSE(w.s.flow(w.f).has_value());
  CHECK(commit(kBoot).counted == Counts{{"committed", 1}});
  // with an entry it is judged like any other: the table knows
  w.s.set_flow(w.f, Rig::owned(2, 1, kGeneration, false));
  CHECK(commit(kBoot - 1).counted == Counts{{"commit_repeated", 1}});
}

TEST_CASE("recovery: RENEW makes the entry anew, its owner has spoken") {
  SWITCH_WORLD(w);
  recover(w);
  CHECK(renew(w, 2, kGeneration) == kAnnounced);
  const auto flow = w.s.flow(w.f).value();
  CHECK(flow.owner.is.owner == 2);
  CHECK(flow.owner.is.previous == 0);
  CHECK(flow.owner.is.spoke == 1);
  CHECK(flow.owner.is.port == kTargetPort);
  CHECK(flow.owner.is.generation == kGeneration);
  CHECK(flow.service == kService);
  CHECK(renew(w, 2, kGeneration) == Counts{{"renewed", 1}});
  CHECK(from_client(w, kAck) == Counts{{"to_owner", 1}});
  CHECK(w.s.from_node(w.tcp_out(2, {.source = kTargetPort, .flags = kAck})).counted ==
        Counts{{"from_node", 1}});
  // the dispatcher that once gave it away has nothing to take back
  CHECK(
      w.s.from_node(control(w.f, transfer(w.f, abi::WIRE_COMMIT, 1, 1, kGeneration + 1))).counted ==
      Counts{{"refused_not_entitled", 1}});
}

TEST_CASE("recovery: of two who announce one flow the newer generation wins, the other is told") {
  SWITCH_WORLD(w);
  recover(w);
  w.s.revocations();
  SECTION("the zombie comes first") {
    CHECK(renew(w, 3, kGeneration) == kAnnounced);
    CHECK(renew(w, 2, kGeneration + 1) == kAnnounced);
    CHECK(renew(w, 3, kGeneration) == Counts{{"refused_stale", 1}, {"revoked", 1}});
  }
  SECTION("the zombie comes last") {
    CHECK(renew(w, 2, kGeneration + 1) == kAnnounced);
    CHECK(renew(w, 3, kGeneration) == Counts{{"refused_stale", 1}, {"revoked", 1}});
  }
  CHECK(w.s.flow(w.f)->owner.is.owner == 2);
  const auto told = w.s.revocations();
  REQUIRE(told.size() == 1);
  CHECK(told[0].node == 3);
  CHECK(told[0].generation == kGeneration + 1);
  CHECK(renew(w, 3, kGeneration + 1) == Counts{{"refused_not_entitled", 1}});  // a contradiction
}

TEST_CASE("recovery: a node that has taken its flow back since it announced it is believed") {
  SWITCH_WORLD(w);
  recover(w);
  w.s.revocations();
  CHECK(renew(w, 2, kGeneration) == kAnnounced);
  recover(w, -3600);  // whenever it says so
  CHECK(renew(w, 2, kGeneration + 2) == Counts{{"renewed", 1}});
  CHECK(w.s.flow(w.f)->owner.is.generation == kGeneration + 2);
  CHECK(w.s.flow(w.f)->owner.is.previous == 0);
  CHECK(renew(w, 2, kGeneration) == Counts{{"refused_stale", 1}});  // was on its way for long
  CHECK(w.s.revocations().empty());
}

TEST_CASE("recovery: what was committed is never taken by an announcement") {
  SWITCH_WORLD(w);
  recover(w);
  w.s.set_flow(w.f, Rig::owned(2, 1, kGeneration, true));
  CHECK(renew(w, 3, kGeneration + 5) == Counts{{"refused_not_entitled", 1}});
  CHECK(renew(w, 2, kGeneration + 5) == Counts{{"refused_stale", 1}});
  CHECK(w.s.flow(w.f)->owner.is.owner == 2);
  CHECK(w.s.flow(w.f)->owner.is.generation == kGeneration);
}

TEST_CASE("recovery: an announcement that comes late takes no connection from a dispatcher") {
  SWITCH_WORLD(w);
  recover(w, -1);
  w.s.bind(w.f, 1);
  CHECK(renew(w, 2, kGeneration) == Counts{{"refused_not_entitled", 1}});
  tcpmig::sys::map_delete(w.s.map("affinity"), key_of(w.f));
  CHECK(renew(w, 1, kGeneration) == Counts{{"refused_not_entitled", 1}});  // no server
  recover(w, -31);
  CHECK(renew(w, 2, kGeneration) == Counts{{"refused_not_entitled", 1}});  // too late
  recover(w, -1);
  CHECK(renew(w, 2, kGeneration) == kAnnounced);
  recover(w, -31);
  CHECK(renew(w, 3, kGeneration + 1) == Counts{{"refused_not_entitled", 1}});
}

TEST_CASE("lease: RENEW says that the owner has the connection: nobody takes it back") {
  SWITCH_WORLD(w);
  w.s.set_flow(w.f, Rig::owned(2, 1, kGeneration, false));
  CHECK(renew(w, 2, kGeneration) == Counts{{"renewed", 1}});
  CHECK(w.s.flow(w.f)->owner.is.spoke == 1);
}

TEST_CASE("switch: a RST before the owner's first word counts only where the snapshot ends") {
  SWITCH_WORLD(w);
  auto entry = Rig::owned(2, 1, kGeneration, false);
  entry.snd_nxt = 5000;
  w.s.set_flow(w.f, entry);
  const auto reset = [&](std::uint32_t seq) {
    return w.s.from_node(w.tcp_out(2, {.seq = seq, .flags = kRst | kAck})).counted;
  };
  CHECK(reset(4999) == Counts{{"drop_foreign", 1}});
  CHECK(w.s.flow(w.f)->owner.is.spoke == 0);
  CHECK_FALSE(w.s.flow(w.f)->marks.is.closing);
  // as long as the COMMIT may be on its way: the node's kernel speaks for an earlier connection
  w.s.set_settings([](abi::switch_settings& settings) { settings.transfer_ms = 3'600'000; });
  CHECK(reset(5000) == Counts{{"drop_foreign", 1}});
  w.s.set_settings([](abi::switch_settings& settings) { settings.transfer_ms = 0; });
  CHECK(reset(5000) == Counts{{"from_node", 1}, {"spoke", 1}, {"closed", 1}});
  CHECK(w.s.flow(w.f)->marks.is.closing);
}

TEST_CASE("switch: an owner's first word begins where the snapshot ends") {
  SWITCH_WORLD(w);
  auto entry = Rig::owned(2, 1, kGeneration, false);
  entry.snd_nxt = 5000;
  const auto says = [&](std::uint32_t seq) {
    w.s.set_flow(w.f, entry);
    const auto counted = w.s.from_node(w.tcp_out(2, {.seq = seq, .flags = kAck})).counted;
    if (!entry.owner.is.spoke)
      CHECK(w.s.flow(w.f)->owner.is.spoke == (counted.contains("spoke") ? 1 : 0));
    return counted;
  };
  const Counts first{{"from_node", 1}, {"spoke", 1}}, foreign{{"drop_foreign", 1}};
  CHECK(says(5000) == first);
  CHECK(says(4999) == first);              // a window probe
  CHECK(says(5000 + 64 * 1460) == first);  // the packets before it were lost
  CHECK(says(4998) == foreign);            // TIME_WAIT of an earlier connection
  CHECK(says(5000 + (1 << 20)) == foreign);
  CHECK(says(5000 + (1U << 31)) == foreign);
  entry.owner.is.spoke = 1;  // what follows is the client's to judge
  CHECK(says(5000 + (1U << 31)) == Counts{{"from_node", 1}});
}

TEST_CASE("switch: a dispatcher that has taken its flow back may reset it at once") {
  SWITCH_WORLD(w);
  w.s.set_settings([](abi::switch_settings& settings) { settings.transfer_ms = 3'600'000; });
  auto entry = Rig::owned(1, 1, kGeneration, false);
  entry.snd_nxt = 5000;
  w.s.set_flow(w.f, entry);
  CHECK(w.s.from_node(w.tcp_out(1, {.seq = 5000, .flags = kRst | kAck})).counted ==
        Counts{{"from_node", 1}, {"spoke", 1}, {"closed", 1}});
}

TEST_CASE("control: a COMMIT's snd_nxt is kept with the entry") {
  SWITCH_WORLD(w);
  for (const unsigned generation : {kGeneration, kGeneration + 1}) {
    abi::wire_header header = transfer(w.f, abi::WIRE_COMMIT, 1, 2, generation);
    header.snd_nxt = htonl(0xfffffff0 + generation);
    w.s.from_node(control(w.f, header));
    CHECK(w.s.flow(w.f)->snd_nxt == 0xfffffff0 + generation);
  }
}

TEST_CASE("heartbeat: noted, and answered with the boot of the switch") {
  SWITCH_WORLD(w);
  recover(w, -1);
  const auto before = now_ns();
  const Result r = w.s.from_node(control(w.f, heartbeat(w.f, 2, 55)));
  CHECK(r.counted == Counts{{"heartbeat", 1}});
  REQUIRE(r.action == Action::kRedirect);
  const abi::wire_header answer = header_of(r.view());
  CHECK(answer.type == abi::WIRE_HEARTBEAT);
  CHECK(ntohl(answer.detail) == kBoot);
  CHECK(answer.sender == 0);
  CHECK(ntohs(answer.target) == 2);
  CHECK(tagged_for(answer, 2));
  const auto first = liveness(w, 2);
  CHECK(first.heard_ns > before);
  CHECK(first.since_ns == first.heard_ns);
  CHECK(first.instance == 55);
  CHECK_FALSE(first.draining);
  w.s.from_node(control(w.f, heartbeat(w.f, 2, 55, abi::WIRE_FLAG_DRAINING)));
  CHECK(liveness(w, 2).draining);
  CHECK(liveness(w, 2).since_ns == first.since_ns);
  CHECK(liveness(w, 2).heard_ns > first.heard_ns);
  w.s.from_node(control(w.f, heartbeat(w.f, 2, 56)));
  CHECK(liveness(w, 2).since_ns > first.since_ns);
  CHECK_FALSE(liveness(w, 2).draining);
}

TEST_CASE("heartbeat: a repeat is none") {
  SWITCH_WORLD(w);
  const abi::wire_header header = heartbeat(w.f, 3, 77);
  CHECK(w.s.from_node(control(w.f, header)).counted == Counts{{"heartbeat", 1}});
  const auto heard = liveness(w, 3).heard_ns;
  CHECK(w.s.from_node(control(w.f, header)).counted == Counts{{"refused_replay", 1}});
  CHECK(liveness(w, 3).heard_ns == heard);
}
