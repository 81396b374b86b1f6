// SPDX-License-Identifier: MIT
// A million datagrams and a million SYNs of people who are not entitled to anything: no flow is any
// different afterwards, and each packet stands in a counter that says why.
#include <cstring>
#include <map>

#include "bpf/flood.hpp"

using namespace rig;
using namespace packets;

namespace {

constexpr unsigned kPackets = 250'000;  // by two backends and two families: a million

template <typename Value>
std::map<std::string, std::string> bytes_of_map(int fd) {
  std::map<std::string, std::string> all;
  tcpmig::sys::map_for_each<abi::flow_key, Value>(fd, [&](const auto& key, const auto& value) {
    all.emplace(std::string(reinterpret_cast<const char*>(&key), sizeof key),
                std::string(reinterpret_cast<const char*>(&value), sizeof value));
  });
  return all;
}

std::map<std::string, std::string> flow_table(const World& w) {
  return bytes_of_map<abi::flow_value>(w.s.map("flows"));
}

Counts since(const Counts& before, const Counts& after) {
  Counts moved;
  for (const auto& [name, value] : after)
    if (value != before.at(name)) moved[name] = value - before.at(name);
  return moved;
}

std::uint64_t sum(const Counts& counts) {
  std::uint64_t all = 0;
  for (const auto& [name, value] : counts) all += value;
  return all;
}

Bytes family_syn(int version) {
  const Family& f = family(version);
  return (Ethernet{mac_of_interface("clients0"), mac_of_client(), {}} / ip(f.client, f.vip) /
          Tcp{.source = kClientPort, .destination = kPort, .seq = 7, .flags = kSyn})
      .bytes();
}

/// Every packet gets exactly one of these, and nothing besides.
bool is_reason(const std::string& name) {
  return name.starts_with("drop_") || name.starts_with("refused_") || name == "gone_late" ||
         name == "passed";
}

/// From anywhere; or in the name of a client whose connection was moved, and lives.
Bytes forged_syn(const World& w, flood::Flood& flood, bool of_owned) {
  static Bytes any[2] = {family_syn(4), family_syn(6)};
  const bool v4 = w.f.version == 4;
  Bytes& syn = any[v4 ? 0 : 1];
  const auto client = w.f.client.raw();
  const std::size_t size = v4 ? 4 : 16, ip = 14;
  std::uint8_t* source = &syn[ip + (v4 ? 12 : 8)];
  std::copy_n(client.bytes + 16 - size, size, source);
  if (!of_owned)
    for (std::size_t k = 1; k < size; k++) source[k] = static_cast<std::uint8_t>(flood.random());
  auto flow = flood.random() % flood::kFlows;
  if (flow == flood::kGone) flow = 0;  // a SYN is the proper end of that one
  const auto port = of_owned ? flood::kFirstPort + flow : flood.random() & 0xffff;
  std::uint8_t* place = &syn[ip + (v4 ? 20 : 40)];
  place[0] = static_cast<std::uint8_t>(port >> 8);
  place[1] = static_cast<std::uint8_t>(port);
  return syn;
}

}  // namespace

TEST_CASE("flood: a million control datagrams of every wrong kind change no flow") {
  SWITCH_WORLD(w);
  flood::Flood flood(w, 20261124);
  flood::Gun gun(w);
  const auto table = flow_table(w);
  const auto bindings = bytes_of_map<abi::affinity_value>(w.s.map("affinity"));
  REQUIRE(table.size() == flood::kFlows);
  const Counts before = w.s.counters();
  for (unsigned i = 0; i < kPackets; i++) {
    const auto kind = flood.any_kind();
    const auto frame = flood.make(kind);
    kind == flood::Kind::kClients ? gun.clients(frame) : gun.nodes(frame);
  }
  const Counts moved = since(before, w.s.counters());
  for (const auto& [name, value] : moved) {
    INFO(name << ' ' << value);
    CHECK(is_reason(name));
  }
  CHECK(sum(moved) == kPackets);
  for (const char* reason : {"drop_bad_message", "drop_bad_tag", "drop_control_from_clients",
                             "refused_replay", "refused_stale", "refused_not_entitled",
                             "refused_unknown_node", "refused_unknown_service", "gone_late"}) {
    INFO(reason);
    CHECK(moved.count(reason) == 1);
  }
  CHECK(flow_table(w) == table);
  CHECK(bytes_of_map<abi::affinity_value>(w.s.map("affinity")) == bindings);
  // and those who are entitled are heard as before
  abi::wire_header on = transfer(w.f, abi::WIRE_COMMIT, 2, 7, flood::kGeneration + 1);
  on.lane = 4;
  CHECK(w.s.from_node(control(w.f, on)).counted == Counts{{"committed", 1}});
}

TEST_CASE("flood: a million SYNs take nothing from the flows that are owned") {
  SWITCH_WORLD(w);
  flood::Flood flood(w, 1);  // for its ten flows
  flood::Gun gun(w);
  const auto table = flow_table(w);
  constexpr std::uint16_t kEarlier = 30000;
  CHECK(w.s.from_client(w.tcp_in({.source = kEarlier, .flags = kSyn})).counted ==
        Counts{{"to_dispatcher", 1}});
  const Counts before = w.s.counters();
  for (unsigned i = 0; i < kPackets; i++) gun.clients(forged_syn(w, flood, i % 16 == 0));
  const Counts moved = since(before, w.s.counters());
  for (const auto& [name, value] : moved) {
    INFO(name << ' ' << value);
    CHECK((is_reason(name) || name == "to_dispatcher" || name == "syn_live"));
  }
  CHECK(sum(moved) == kPackets);
  CHECK(moved.at("syn_live") == kPackets / 16);
  CHECK(moved.at("to_dispatcher") > kPackets / 16 * 14);
  CHECK(flow_table(w) == table);
  for (unsigned flow = 0; flow < flood::kFlows; flow++) {
    const auto port = static_cast<std::uint16_t>(flood::kFirstPort + flow);
    CHECK(w.s.from_client(w.tcp_in({.source = port})).view().destination == w.f.vpa(2));
  }
  // a connection that came just before: its binding may have been evicted, it is moved all the same
  abi::wire_header first = transfer(w.f, abi::WIRE_COMMIT, 1, 2, 7);
  first.client_port = htons(kEarlier);
  CHECK(w.s.from_node(control(w.f, first)).counted == Counts{{"committed", 1}});
}
