// SPDX-License-Identifier: MIT
// Control datagrams at the switch: who is believed, what a COMMIT does, what is sent back.
#include <cstring>
#include <map>

#include "bpf/switch_rig.hpp"

using namespace rig;
using namespace packets;

namespace {

constexpr unsigned kGeneration = 1000;

abi::wire_header commit(const World& w, unsigned sender, unsigned target, unsigned generation) {
  return transfer(w.f, abi::WIRE_COMMIT, sender, target, generation);
}

Result send(const World& w, const abi::wire_header& header, const Bytes& payload = {}) {
  return w.s.from_node(control(w.f, header, payload));
}

/// A refusal that came back to `node`, right in every part; its header.
abi::wire_header answered(const World& w, const Result& r, unsigned node, abi::wire_type type,
                          const abi::wire_header& question) {
  CHECK(r.action == Action::kRedirect);
  const View v = r.view();
  CHECK(v.mac_destination == mac_of_node(static_cast<int>(node)));
  CHECK(v.mac_source == mac_of_interface("nodes0"));
  CHECK(v.source == w.f.own_nodes);
  CHECK(v.destination == w.f.node(static_cast<int>(node)));
  CHECK(v.source_port == kControlPort);
  CHECK(v.destination_port == 50000);
  CHECK(v.udp_checksum);
  const abi::wire_header h = header_of(v);
  CHECK(h.type == type);
  CHECK(h.sender == 0);
  CHECK(ntohs(h.target) == node);
  CHECK(h.sequence == question.sequence);
  CHECK(h.generation == question.generation);
  CHECK(h.target_tag == 0);
  CHECK(tagged_for(h, node));
  CHECK(ntohl(h.payload_length) == v.payload.size() - sizeof h);
  return h;
}

void refused(const World& w, const abi::wire_header& question, abi::wire_reason reason,
             unsigned current, const char* counter) {
  const Result r = send(w, question, Bytes(33, 'r'));
  CHECK(r.counted == Counts{{counter, 1}});
  const auto h = answered(w, r, ntohs(question.sender), abi::WIRE_REFUSED, question);
  CHECK(h.reason == reason);
  CHECK(ntohl(h.current_generation) == current);
}

void forwarded(const World& w, const Result& r, int target, const Bytes& payload) {
  CHECK(r.action == Action::kRedirect);
  const View v = r.view();
  CHECK(v.source == w.f.node(1));
  CHECK(v.source_port == 50000);
  CHECK(v.destination == w.f.node(target));
  CHECK(v.destination_port == kControlPort);
  CHECK(v.mac_destination == mac_of_node(target));
  CHECK(v.ttl == 63);
  CHECK(Bytes(v.payload.begin() + abi::WIRE_HEADER_SIZE, v.payload.end()) == payload);
}

}  // namespace

TEST_CASE("control: the first COMMIT of a flow makes the entry and goes on to the target") {
  SWITCH_WORLD(w);
  const Bytes payload(501, 'c');
  const abi::wire_header h = commit(w, 1, 2, kGeneration);
  const std::uint64_t before = now_ns();
  const Result r = send(w, h, payload);
  const std::uint64_t after = now_ns();
  CHECK(r.counted == Counts{{"committed", 1}});
  forwarded(w, r, 2, payload);
  const abi::wire_header out = header_of(r.view());
  const std::uint64_t stamp = __builtin_bswap64(out.switch_ns);
  CHECK(stamp >= before);
  CHECK(stamp <= after);
  CHECK(tagged_for(out, 1));  // nothing under the tag has changed
  const auto flow = w.s.flow(w.f);
  REQUIRE(flow);
  CHECK(flow->owner.is.owner == 2);
  CHECK(flow->owner.is.previous == 1);
  CHECK(flow->owner.is.port == kTargetPort);
  CHECK(flow->owner.is.generation == kGeneration);
  CHECK(flow->owner.is.spoke == 0);
  CHECK(flow->committed_ns == stamp);
  CHECK(flow->last_seen_ns == stamp);
  CHECK(flow->service == kService);
  CHECK(flow->marks.word == 0);
  CHECK(flow->packets_in == 0);
}

TEST_CASE("control: a client's FIN from before the transfer counts for the end of the entry") {
  SWITCH_WORLD(w);
  const auto with_fin = [&](int sender, int target, unsigned generation) {
    abi::wire_header h = commit(w, sender, target, generation);
    h.flags = abi::WIRE_FLAG_CLIENT_FIN;
    h.rcv_nxt = htonl(500);
    return h;
  };
  const auto ends = [&](int owner) {
    CHECK(w.s.flow(w.f)->marks.is.client_fin);
    CHECK(w.s.flow(w.f)->client_fin_end == 501);
    w.s.from_node(w.tcp_out(owner, {.seq = 1000, .ack = 501, .flags = kFin | kAck}));
    CHECK_FALSE(w.s.flow(w.f)->marks.is.closing);
    w.s.from_client(w.tcp_in({.seq = 501, .ack = 1001, .flags = kAck}));
    CHECK(w.s.flow(w.f)->marks.is.closing);
  };
  SECTION("a new entry") {
    REQUIRE(send(w, with_fin(1, 2, kGeneration)).counted == Counts{{"committed", 1}});
    ends(2);
  }
  SECTION("one that changes hands") {
    w.s.set_flow(w.f, Rig::owned(2, 1, 77, true));
    REQUIRE(send(w, with_fin(2, 7, 78)).counted == Counts{{"committed", 1}});
    ends(7);
  }
}

TEST_CASE("control: steering follows the COMMIT at once") {
  SWITCH_WORLD(w);
  CHECK(w.s.from_client(w.tcp_in({.flags = kAck})).view().destination == w.f.vpa(1));
  send(w, commit(w, 1, 2, kGeneration));
  CHECK(w.s.from_client(w.tcp_in({.flags = kAck})).view().destination == w.f.vpa(2));
  CHECK(w.s.from_node(w.tcp_out(1, {.source = kPort, .flags = kAck})).counted ==
        Counts{{"drop_late_ack", 1}});
  CHECK(w.s.from_node(w.tcp_out(2, {.flags = kAck})).counted ==
        Counts{{"from_node", 1}, {"spoke", 1}});
}

TEST_CASE("control: only the dispatcher that has the connection makes an entry") {
  SWITCH_WORLD(w);
  refused(w, commit(w, 2, 3, kGeneration), abi::REASON_NOT_ENTITLED, 0, "refused_not_entitled");
  w.s.bind(w.f, 5);
  refused(w, commit(w, 1, 2, kGeneration), abi::REASON_NOT_ENTITLED, 0, "refused_not_entitled");
  CHECK_FALSE(w.s.flow(w.f));
  CHECK(send(w, commit(w, 5, 2, kGeneration)).counted == Counts{{"committed", 1}});
}

TEST_CASE("control: a repeat is forwarded again while the owner is silent, and changes nothing") {
  SWITCH_WORLD(w);
  const Bytes payload(20, 'c');
  send(w, commit(w, 1, 2, kGeneration), payload);
  const auto word = w.s.flow(w.f)->owner.word;
  const Result again = send(w, commit(w, 1, 2, kGeneration), payload);
  CHECK(again.counted == Counts{{"commit_repeated", 1}});
  forwarded(w, again, 2, payload);
  CHECK(w.s.flow(w.f)->owner.word == word);
  abi::wire_header other_port = commit(w, 1, 2, kGeneration);
  other_port.target_port = htons(9);
  refused(w, other_port, abi::REASON_STALE_GENERATION, kGeneration, "refused_stale");
  refused(w, commit(w, 1, 7, kGeneration), abi::REASON_STALE_GENERATION, kGeneration,
          "refused_stale");
  w.s.from_node(w.tcp_out(2, {.flags = kAck}));
  refused(w, commit(w, 1, 2, kGeneration), abi::REASON_ALREADY_SPOKE, kGeneration, "refused_spoke");
}

TEST_CASE("control: the owner hands on, with the next generation only") {
  SWITCH_WORLD(w);
  w.s.set_flow(w.f, Rig::owned(2, 1, kGeneration, true));
  refused(w, commit(w, 2, 7, kGeneration), abi::REASON_STALE_GENERATION, kGeneration,
          "refused_stale");
  refused(w, commit(w, 2, 7, kGeneration - 1), abi::REASON_STALE_GENERATION, kGeneration,
          "refused_stale");
  refused(w, commit(w, 2, 7, kGeneration + 2), abi::REASON_STALE_GENERATION, kGeneration,
          "refused_stale");
  refused(w, commit(w, 5, 7, kGeneration + 1), abi::REASON_NOT_ENTITLED, kGeneration,
          "refused_not_entitled");
  const Result r = send(w, commit(w, 2, 7, kGeneration + 1));
  CHECK(r.counted == Counts{{"committed", 1}});
  CHECK(r.view().destination == w.f.node(7));
  const auto owner = w.s.flow(w.f)->owner.is;
  CHECK(owner.owner == 7);
  CHECK(owner.previous == 2);
  CHECK(owner.generation == kGeneration + 1);
  CHECK(owner.spoke == 0);
}

TEST_CASE("control: generations wrap") {
  SWITCH_WORLD(w);
  w.s.set_flow(w.f, Rig::owned(2, 1, abi::GENERATION_MASK, true));
  CHECK(send(w, commit(w, 2, 7, 0)).counted == Counts{{"committed", 1}});
  CHECK(w.s.flow(w.f)->owner.is.generation == 0);
}

TEST_CASE("control: the previous owner takes back, until the owner has spoken") {
  SWITCH_WORLD(w);
  w.s.set_flow(w.f, Rig::owned(2, 1, kGeneration, false));
  abi::wire_header h = commit(w, 1, 1, kGeneration + 1);
  h.target_port = htons(kPort);
  SECTION("in time") {
    for (const bool flagged : {true, false}) {  // the first time, and its repeat
      h = commit(w, 1, 1, kGeneration + 1);
      h.target_port = htons(kPort);
      h.flags = flagged ? abi::WIRE_FLAG_TAKE_BACK : 0;
      const Result r = send(w, h, Bytes(5));
      CHECK(r.counted == Counts{{flagged ? "taken_back" : "commit_repeated", 1}});
      const auto answer = answered(w, r, 1, abi::WIRE_RESUMED, h);
      CHECK(answer.reason == abi::REASON_NONE);
      CHECK(ntohl(answer.current_generation) == kGeneration + 1);
      CHECK(answer.switch_ns != 0);
      const auto owner = w.s.flow(w.f)->owner.is;
      CHECK(owner.owner == 1);
      CHECK(owner.port == kPort);
      CHECK(owner.generation == kGeneration + 1);
      CHECK(owner.spoke == 0);
    }
    CHECK(w.s.from_node(w.tcp_out(2, {.flags = kAck})).counted == Counts{{"drop_late_ack", 1}});
    CHECK(w.s.from_node(w.tcp_out(1, {.source = kPort, .flags = kAck})).counted ==
          Counts{{"from_node", 1}, {"spoke", 1}});
  }
  SECTION("too late") {
    w.s.from_node(w.tcp_out(2, {.flags = kAck}));
    refused(w, h, abi::REASON_ALREADY_SPOKE, kGeneration, "refused_spoke");
  }
  SECTION("and is told so again even when it has spoken since: the first answer was lost") {
    send(w, h);
    w.s.from_node(w.tcp_out(1, {.source = kPort, .flags = kAck}));
    h.sequence = commit(w, 1, 1, 0).sequence;
    const Result r = send(w, h);
    CHECK(r.counted == Counts{{"commit_repeated", 1}});
    answered(w, r, 1, abi::WIRE_RESUMED, h);
    CHECK(w.s.flow(w.f)->owner.is.spoke == 1);
  }
  SECTION("with a wrong generation") {
    h.generation = htonl(kGeneration + 2);
    refused(w, h, abi::REASON_STALE_GENERATION, kGeneration, "refused_stale");
  }
  SECTION("on to another node") {
    const Result r = send(w, commit(w, 1, 7, kGeneration + 1));
    CHECK(r.counted == Counts{{"committed", 1}});
    CHECK(r.view().destination == w.f.node(7));
    CHECK(w.s.flow(w.f)->owner.is.owner == 7);
    CHECK(w.s.flow(w.f)->owner.is.previous == 1);
  }
}

TEST_CASE("control: a dispatcher may be the first owner itself") {
  SWITCH_WORLD(w);
  abi::wire_header h = commit(w, 1, 1, kGeneration);
  h.target_port = htons(kPort);
  const Result r = send(w, h, Bytes(5));
  CHECK(r.counted == Counts{{"committed", 1}});
  answered(w, r, 1, abi::WIRE_RESUMED, h);
  CHECK(w.s.flow(w.f)->owner.is.owner == 1);
  CHECK(w.s.from_node(w.tcp_out(1, {.source = kPort, .flags = kAck})).counted ==
        Counts{{"from_node", 1}, {"spoke", 1}});
}

TEST_CASE("control: a dead entry is revived, clean, by a newer generation only") {
  SWITCH_WORLD(w);
  auto entry = Rig::owned(2, 1, kGeneration, true);
  entry.packets_in = entry.packets_out = 9;
  entry.marks.is.generation = kGeneration;
  entry.marks.is.closing = entry.marks.is.client_fin = 1;
  SECTION("expired") {
    w.s.set_settings([](auto& settings) { settings.idle_ns = 1000000; });
    entry.last_seen_ns -= 100000000;
    w.s.set_flow(w.f, entry);
    const Result r = send(w, commit(w, 1, 7, kGeneration + 1));
    w.s.set_settings([](auto& settings) { settings.idle_ns = 1000000000000; });
    CHECK(r.counted == Counts{{"committed", 1}});
  }
  SECTION("reopened") {
    entry.owner.word = 0;
    entry.owner.is.generation = kGeneration;
    w.s.set_flow(w.f, entry);
    for (const unsigned old : {kGeneration, kGeneration - 1, kGeneration + (1U << 26)})
      refused(w, commit(w, 1, 7, old), abi::REASON_STALE_GENERATION, kGeneration, "refused_stale");
    refused(w, commit(w, 2, 7, kGeneration + 1), abi::REASON_NOT_ENTITLED, kGeneration,
            "refused_not_entitled");
    CHECK(w.s.flow(w.f)->owner.word == entry.owner.word);
    CHECK(send(w, commit(w, 1, 7, kGeneration + 1000000)).counted == Counts{{"committed", 1}});
  }
  const auto flow = w.s.flow(w.f).value();
  CHECK(flow.owner.is.owner == 7);
  CHECK(flow.owner.is.spoke == 0);
  CHECK(flow.packets_in == 0);
  CHECK(flow.packets_out == 0);
  CHECK(flow.marks.is.generation != flow.owner.is.generation);
  CHECK(w.s.from_client(w.tcp_in({.flags = kSyn})).counted == Counts{{"syn_live", 1}});
}

TEST_CASE("control: unknown targets and services") {
  SWITCH_WORLD(w);
  const auto unknown = [&](unsigned target) {
    refused(w, commit(w, 1, target, kGeneration), abi::REASON_UNKNOWN_NODE, 0,
            "refused_unknown_node");
  };
  unknown(0);
  unknown(9);
  unknown(60000);
  unknown(6);  // configured, but there is no route to it
  w.s.set_node(2, [](auto& node) { node.address4 = node.address6 = {}; });
  unknown(2);
  for (const unsigned service : {0U, 77U, unsigned{kNoVipService}, 60000U}) {
    abi::wire_header h = commit(w, 1, 7, kGeneration);
    h.service = htons(static_cast<std::uint16_t>(service));
    refused(w, h, abi::REASON_UNKNOWN_SERVICE, 0, "refused_unknown_service");
  }
  CHECK_FALSE(w.s.flow(w.f));
}

TEST_CASE("control: a full table refuses and evicts nothing") {
  SWITCH_WORLD(w);
  for (std::uint16_t port = 1; port <= 1024; port++)
    w.s.set_flow(w.f, Rig::owned(2, 1, 7, true), port);
  refused(w, commit(w, 1, 2, kGeneration), abi::REASON_TABLE_FULL, 0, "refused_table_full");
  CHECK(w.s.flow(w.f, 1));
  CHECK(w.s.flow(w.f, 1024));
}

TEST_CASE("control: a message number counts once in each lane") {
  SWITCH_WORLD(w);
  abi::wire_header h = commit(w, 1, 2, kGeneration);
  CHECK(send(w, h).counted == Counts{{"committed", 1}});
  refused(w, h, abi::REASON_REPLAY, 0, "refused_replay");
  h.lane = 4;
  CHECK(send(w, h).counted == Counts{{"commit_repeated", 1}});
  h.lane = 3;
  h.sequence = __builtin_bswap64(__builtin_bswap64(h.sequence) + 5000);
  h.lane = 5;
  send(w, h);
  h.sequence = __builtin_bswap64(__builtin_bswap64(h.sequence) - 511);
  CHECK(send(w, h).counted == Counts{{"commit_repeated", 1}});
  h.sequence = __builtin_bswap64(__builtin_bswap64(h.sequence) - 1);
  refused(w, h, abi::REASON_REPLAY, 0, "refused_replay");
  abi::wire_header renew = transfer(w.f, abi::WIRE_RENEW, 2, 0, kGeneration);
  CHECK(send(w, renew).counted == Counts{{"renewed", 1}});
  const Result again = send(w, renew);  // not worth an answer
  CHECK(again.action == Action::kDrop);
  CHECK(again.counted == Counts{{"refused_replay", 1}});
}

TEST_CASE("control: a forged message changes nothing, not even the replay window") {
  SWITCH_WORLD(w);
  const abi::wire_header good = commit(w, 1, 2, kGeneration);
  for (std::size_t byte = 0; byte < abi::WIRE_TAGGED + 8; byte++) {
    if (byte >= 4 && byte < 7) continue;  // version, type, key id: below
    Packet packet = control(w.f, good, Bytes(3));
    std::get<Udp>(packet.transport).payload[byte] ^= 0x40;
    const Result r = w.s.from_node(packet);
    INFO("byte " << byte);
    CHECK(r.action == Action::kDrop);
    CHECK(r.counted.size() == 1);
    CHECK(r.counted.count("drop_bad_tag") + r.counted.count("drop_bad_message") == 1);
  }
  CHECK_FALSE(w.s.flow(w.f));
  CHECK(send(w, good).counted == Counts{{"committed", 1}});
}

TEST_CASE("control: keys") {
  SWITCH_WORLD(w);
  const Counts bad{{"drop_bad_tag", 1}}, committed{{"committed", 1}};
  abi::wire_header h = commit(w, 1, 2, kGeneration);
  h.key_id = 2;  // its slot is empty
  CHECK(send(w, h).counted == bad);
  h.key_id = 3;  // the slot holds key 1
  CHECK(send(w, h).counted == bad);
  h.key_id = 0;
  CHECK(send(w, h).counted == bad);
  w.s.set_node(1, [](auto& node) { node.keys.key_id[0] = 2; });
  h.key_id = 2;
  CHECK(send(w, h).counted == committed);
  // the key of one node does not speak for another
  Packet forged = control(w.f, commit(w, 5, 7, kGeneration + 1));
  auto& payload = std::get<Udp>(forged.transport).payload;
  payload[17] = 2;  // the owner
  CHECK(w.s.from_node(forged).counted == bad);
}

TEST_CASE("control: messages that are none") {
  SWITCH_WORLD(w);
  const Counts bad{{"drop_bad_message", 1}};
  const auto with = [&](auto change) {
    abi::wire_header h = commit(w, 1, 2, kGeneration);
    change(h);
    const Result r = send(w, h, Bytes(7));
    CHECK(r.action == Action::kDrop);
    return r.counted;
  };
  CHECK(with([](auto& h) { h.magic = 1; }) == bad);
  CHECK(with([](auto& h) { h.version = 2; }) == bad);
  CHECK(with([](auto& h) { h.lane = abi::MAX_LANES; }) == bad);
  CHECK(with([&](auto& h) { h.family = static_cast<std::uint8_t>(10 - w.f.version); }) == bad);
  CHECK(with([](auto& h) { h.sender = 0; }) == bad);
  CHECK(with([](auto& h) { h.sender = htons(9); }) == bad);
  CHECK(with([](auto& h) { h.sender = htons(1024); }) == bad);
  CHECK(with([](auto& h) { h.sender = htons(4); }) == bad);  // it is behind another interface
  CHECK(with([](auto& h) { h.generation = htonl(abi::GENERATION_MASK + 1); }) == bad);
  CHECK(with([](auto& h) { h.flags = abi::WIRE_FLAG_TAKE_BACK; }) == bad);  // the target is another
  for (int type = 0; type < 256; type++) {
    if ((type >= abi::WIRE_COMMIT && type <= abi::WIRE_RENEW) || type == abi::WIRE_HEARTBEAT)
      continue;
    CHECK(with([&](auto& h) { h.type = static_cast<std::uint8_t>(type); }) == bad);
  }
  Packet packet = control(w.f, commit(w, 1, 2, kGeneration), Bytes(7));
  auto& udp = std::get<Udp>(packet.transport);
  udp.payload.pop_back();
  CHECK(w.s.from_node(packet).counted == bad);
  udp.payload.resize(abi::WIRE_HEADER_SIZE - 1);
  CHECK(w.s.from_node(packet).counted == bad);
  udp.payload.clear();
  CHECK(w.s.from_node(packet).counted == bad);
  udp.length = 7;
  CHECK(w.s.from_node(packet).counted == bad);
  CHECK_FALSE(w.s.flow(w.f));
}

TEST_CASE("control: DATA is steered under the same conditions and changes nothing") {
  SWITCH_WORLD(w);
  const auto data = [&](unsigned sender, unsigned target, unsigned generation) {
    return transfer(w.f, abi::WIRE_DATA, sender, target, generation);
  };
  const Bytes payload(900, 'd');
  const Result r = send(w, data(1, 2, kGeneration), payload);
  CHECK(r.counted == Counts{{"data_steered", 1}});
  forwarded(w, r, 2, payload);
  CHECK(header_of(r.view()).switch_ns == 0);
  CHECK_FALSE(w.s.flow(w.f));
  refused(w, data(2, 7, kGeneration), abi::REASON_NOT_ENTITLED, 0, "refused_not_entitled");
  send(w, commit(w, 1, 2, kGeneration));
  const auto entry = w.s.flow(w.f)->owner.word;
  // a part that was lost is sent again after the COMMIT
  CHECK(send(w, data(1, 2, kGeneration)).counted == Counts{{"data_steered", 1}});
  CHECK(send(w, data(2, 7, kGeneration + 1)).counted == Counts{{"data_steered", 1}});
  refused(w, data(2, 7, kGeneration + 2), abi::REASON_STALE_GENERATION, kGeneration,
          "refused_stale");
  CHECK(w.s.flow(w.f)->owner.word == entry);
}

TEST_CASE("control: at any of the switch's own addresses, and there only") {
  SWITCH_WORLD(w);
  Packet packet = control(w.f, commit(w, 1, 2, kGeneration));
  packet.network = ip(w.f.node(1), w.f.own_nodes1);
  CHECK(w.s.from_node(packet).counted == Counts{{"committed", 1}});
  packet.network = ip(w.f.node(1), w.f.own_clients);  // not an address towards nodes
  CHECK(w.s.from_node(packet).counted == Counts{{"passed", 1}});
  packet.network = ip(w.f.node(1), w.f.own_nodes);
  std::get<Udp>(packet.transport).destination = 7421;
  CHECK(w.s.from_node(packet).counted == Counts{{"passed", 1}});
}

TEST_CASE("control: UDP without a checksum stays without") {
  SWITCH_WORLD(w);
  if (w.f.version == 6) return;
  Packet packet = control(w.f, commit(w, 1, 2, kGeneration), Bytes(9));
  std::get<Udp>(packet.transport).checksum = false;
  const Result r = w.s.from_node(packet);
  CHECK(r.counted == Counts{{"committed", 1}});
  CHECK_FALSE(r.view().udp_checksum);
  Packet stale = control(w.f, commit(w, 1, 7, kGeneration), Bytes(9));
  std::get<Udp>(stale.transport).checksum = false;
  CHECK_FALSE(w.s.from_node(stale).view().udp_checksum);
}

TEST_CASE("control: fragments are no messages") {
  SWITCH_WORLD(w);
  if (w.f.version == 6) return;
  Packet packet = control(w.f, commit(w, 1, 2, kGeneration), Bytes(9));
  std::get<IPv4>(packet.network).more_fragments = true;
  CHECK(w.s.from_node(packet).counted == Counts{{"drop_bad_message", 1}});
}
