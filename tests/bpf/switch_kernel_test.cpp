// SPDX-License-Identifier: MIT
// Where the kernel takes part: TTL, MTU, neighbours, routes; and what removes dead entries.
#include "bpf/switch_rig.hpp"

using namespace rig;
using namespace packets;

namespace {

const Counts kSlow{{"slow_path", 1}};

std::size_t headers(const World& w) { return w.f.version == 4 ? 40 : 60; }

/// TCP towards the client with an IP length of `length`.
Tcp sized(const World& w, std::size_t length) {
  return {.flags = kAck, .payload = Bytes(length - headers(w), 's')};
}

}  // namespace

TEST_CASE("kernel: an expiring TTL goes up untouched") {
  SWITCH_WORLD(w);
  w.s.set_flow(w.f, Rig::owned(2, 1, 7, true));
  for (const std::uint8_t ttl : {std::uint8_t{0}, std::uint8_t{1}}) {
    for (const bool in : {true, false}) {
      const Packet packet =
          in ? w.tcp_in({.flags = kAck}, ttl) : w.tcp_out(2, {.flags = kAck}, ttl);
      const Result r = in ? w.s.from_client(packet) : w.s.from_node(packet);
      CHECK(r.action == Action::kKernel);
      CHECK(r.counted == kSlow);
      CHECK(r.frame == packet.bytes());
    }
  }
  CHECK(w.s.flow(w.f)->packets_in == 0);
  CHECK(w.s.flow(w.f)->packets_out == 0);
  CHECK(w.s.from_client(w.tcp_in({.flags = kAck}, 2)).view().ttl == 1);
}

TEST_CASE("kernel: a packet above the MTU of its route goes up untouched") {
  SWITCH_WORLD(w);
  w.s.set_flow(w.f, Rig::owned(7, 1, 7, true));
  CHECK(w.s.from_client(w.tcp_in(sized(w, 1300))).counted == Counts{{"to_owner", 1}});
  const Packet packet = w.tcp_in(sized(w, 1301));
  const Result r = w.s.from_client(packet);
  CHECK(r.action == Action::kKernel);
  CHECK(r.counted == kSlow);
  CHECK(r.frame == packet.bytes());
}

TEST_CASE("kernel: a packet that may be fragmented goes up rewritten") {
  SWITCH_WORLD(w);
  if (w.f.version == 6) return;
  w.s.set_flow(w.f, Rig::owned(7, 1, 7, true));
  Packet packet = w.tcp_in(sized(w, 1400));
  std::get<IPv4>(packet.network).dont_fragment = false;
  const Result r = w.s.from_client(packet);
  CHECK(r.action == Action::kKernel);
  CHECK(r.counted == Counts{{"slow_path", 1}, {"to_owner", 1}});
  CHECK(r.view().destination == w.f.vpa(7));
  CHECK(r.view().destination_port == kTargetPort);
  CHECK(r.view().ttl == 64);
}

TEST_CASE("kernel: of a GSO packet the segments count, not the whole") {
  SWITCH_WORLD(w);
  if (w.s.backend() == Backend::kXdp) return;  // there are none
  w.s.set_flow(w.f, Rig::owned(7, 1, 7, true));
  const Packet packet = w.tcp_in(sized(w, 3000));
  const auto fits = static_cast<std::uint32_t>(1300 - headers(w));
  CHECK(w.s.from_client(packet, fits).counted == Counts{{"to_owner", 1}});
  CHECK(w.s.from_client(packet, fits + 1).counted == kSlow);
  CHECK(w.s.from_client(packet).counted == kSlow);
}

TEST_CASE("kernel: a node whose MAC is not known") {
  SWITCH_WORLD(w);
  w.s.set_flow(w.f, Rig::owned(3, 1, 7, true));
  const Result r = w.s.from_client(w.tcp_in({.flags = kAck}));
  CHECK(r.counted == Counts{{"slow_path", 1}, {"to_owner", 1}});
  CHECK(r.view().destination == w.f.vpa(3));
  CHECK(r.view().destination_port == kTargetPort);
  if (w.s.backend() == Backend::kTc) {  // bpf_redirect_neigh
    CHECK(r.action == Action::kRedirect);
    CHECK(r.view().ttl == 63);
  } else {  // the kernel forwards, and takes the hop off itself
    CHECK(r.action == Action::kKernel);
    CHECK(r.view().ttl == 64);
  }
}

TEST_CASE("kernel: gateways, known and unknown") {
  SWITCH_WORLD(w);
  Packet packet = w.tcp_out(1, {.source = kPort, .flags = kAck});
  std::visit([&](auto& header) { header.destination = w.f.far; }, packet.network);
  const Result known = w.s.from_node(packet);
  CHECK(known.action == Action::kRedirect);
  CHECK(known.view().mac_destination == mac_of_gateway());
  std::visit([&](auto& header) { header.destination = w.f.far_unresolved; }, packet.network);
  CHECK(w.s.from_node(packet).counted == Counts{{"slow_path", 1}, {"from_node", 1}});
}

TEST_CASE("kernel: no route") {
  SWITCH_WORLD(w);
  w.s.set_flow(w.f, Rig::owned(6, 1, 7, false));
  const Result r = w.s.from_client(w.tcp_in({.flags = kAck}));
  CHECK(r.action == Action::kDrop);
  CHECK(r.counted == Counts{{"drop_no_route", 1}});
  CHECK(w.s.flow(w.f)->packets_in == 0);
}

TEST_CASE("kernel: no route to the client") {
  SWITCH_WORLD(w);
  Packet packet = w.tcp_out(2, {.flags = kAck});
  std::visit([&](auto& header) { header.destination = w.f.node(6); }, packet.network);
  auto key = key_of(w.f);
  key.client = w.f.node(6).raw();
  tcpmig::sys::map_update(w.s.map("flows"), key, Rig::owned(2, 1, 7, false));
  CHECK(w.s.from_node(packet).counted == Counts{{"drop_no_route", 1}});
  const auto flow = tcpmig::sys::map_lookup<abi::flow_value>(w.s.map("flows"), key).value();
  CHECK(flow.owner.is.spoke == 0);
}

TEST_CASE("kernel: a COMMIT or DATA that does not fit its target's MTU is refused") {
  SWITCH_WORLD(w);
  const std::size_t most = 1300 - (w.f.version == 4 ? 28 : 48) - abi::WIRE_HEADER_SIZE;
  const auto sent = [&](abi::wire_type type, std::size_t payload) {
    return w.s.from_node(control(w.f, transfer(w.f, type, 1, 7, 5), Bytes(payload)));
  };
  CHECK(sent(abi::WIRE_COMMIT, most).counted == Counts{{"committed", 1}});
  CHECK(sent(abi::WIRE_DATA, most).counted == Counts{{"data_steered", 1}});
  // the way has become narrower since: the repeat cannot reach the target either
  Result r = sent(abi::WIRE_COMMIT, most + 1);
  CHECK(r.counted == Counts{{"refused_too_large", 1}});
  CHECK(ntohl(header_of(r.view()).current_generation) == 5);
  w.s.reset();
  for (const auto type : {abi::WIRE_COMMIT, abi::WIRE_DATA}) {
    r = sent(type, most + 1);
    CHECK(r.action == Action::kRedirect);
    CHECK(r.counted == Counts{{"refused_too_large", 1}});
    CHECK(r.view().destination == w.f.node(1));
    CHECK(header_of(r.view()).type == abi::WIRE_REFUSED);
    CHECK(header_of(r.view()).reason == abi::REASON_TOO_LARGE);
    CHECK_FALSE(w.s.flow(w.f));
  }
}

TEST_CASE("kernel: a COMMIT whose TTL is over changes nothing") {
  SWITCH_WORLD(w);
  Packet packet = control(w.f, transfer(w.f, abi::WIRE_COMMIT, 1, 2, 5));
  std::visit([](auto& ip) { ip.ttl = 1; }, packet.network);
  const Result r = w.s.from_node(packet);
  CHECK(r.counted == kSlow);
  CHECK(r.frame == packet.bytes());
  CHECK_FALSE(w.s.flow(w.f));
}

TEST_CASE("kernel: a repeat to a node that has become unreachable is dropped") {
  SWITCH_WORLD(w);
  w.s.set_flow(w.f, Rig::owned(6, 1, 7, false));
  CHECK(w.s.from_node(control(w.f, transfer(w.f, abi::WIRE_COMMIT, 1, 6, 7))).counted ==
        Counts{{"drop_no_route", 1}});
}

TEST_CASE("kernel: a COMMIT to a node whose MAC is not known") {
  SWITCH_WORLD(w);
  const Result r = w.s.from_node(control(w.f, transfer(w.f, abi::WIRE_COMMIT, 1, 3, 7), Bytes(50)));
  CHECK(r.counted == Counts{{"committed", 1}, {"slow_path", 1}});
  CHECK(r.view().destination == w.f.node(3));
  CHECK(w.s.flow(w.f)->owner.is.owner == 3);
}

TEST_CASE("sweep: only what is dead long enough is forgotten") {
  SWITCH_WORLD(w);
  auto entry = Rig::owned(2, 1, 7, true);
  w.s.set_flow(w.f, entry);
  CHECK_FALSE(w.s.forget(w.f, 0));
  entry.owner.word = 0;
  entry.owner.is.generation = 7;
  entry.last_seen_ns = now_ns() - 1000000000;
  w.s.set_flow(w.f, entry);
  CHECK_FALSE(w.s.forget(w.f, 60000000000));
  CHECK_FALSE(w.s.forget(w.f, ~0ULL));
  CHECK(w.s.forget(w.f, 1000000));
  CHECK_FALSE(w.s.flow(w.f));
  CHECK_FALSE(w.s.forget(w.f, 1000000));
  w.s.set_settings([](auto& settings) { settings.closing_ns = settings.idle_ns = 1000000000; });
  entry = Rig::owned(2, 1, 7, true);
  entry.last_seen_ns -= 3000000000;
  w.s.set_flow(w.f, entry);
  CHECK_FALSE(w.s.forget(w.f, 4000000000));
  CHECK(w.s.forget(w.f, 1000000));
}

TEST_CASE("sweep: nobody revives what is being removed") {
  SWITCH_WORLD(w);
  auto entry = Rig::owned(0, 0, 0, true);
  entry.owner.word = 0;
  entry.owner.is.spoke = 1;  // condemned: swapped, not yet deleted
  entry.last_seen_ns = 1;
  w.s.set_flow(w.f, entry);
  const auto r = w.s.from_node(control(w.f, transfer(w.f, abi::WIRE_COMMIT, 1, 2, 7)));
  CHECK(r.counted == Counts{{"drop_contention", 1}});
  CHECK(w.s.from_client(w.tcp_in({.flags = kSyn})).counted == Counts{{"to_dispatcher", 1}});
  CHECK(w.s.forget(w.f, 0));
  CHECK(w.s.from_node(control(w.f, transfer(w.f, abi::WIRE_COMMIT, 1, 2, 7))).counted ==
        Counts{{"committed", 1}});
}
