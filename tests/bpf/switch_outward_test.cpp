// SPDX-License-Identifier: MIT
// Nodes -> switch -> clients: who may speak as the service, the point of no return, how a flow
// ends.
#include "bpf/switch_rig.hpp"

using namespace rig;
using namespace packets;

namespace {

/// What a dispatcher says before a transfer comes from the service's own port.
Tcp as_dispatcher(Tcp tcp) {
  tcp.source = kPort;
  return tcp;
}

}  // namespace

TEST_CASE("switch: a dispatcher speaks for connections without an entry") {
  SWITCH_WORLD(w);
  const Bytes payload(77, 'p');
  const auto before = w.s.traffic_of_node(1), service = w.s.traffic_of_service(kService);
  const Result r =
      w.s.from_node(w.tcp_out(1, as_dispatcher({.seq = 9, .flags = kAck, .payload = payload})));
  CHECK(r.action == Action::kRedirect);
  CHECK(r.counted == Counts{{"from_node", 1}});
  const View v = r.view();
  CHECK(v.source == w.f.vip);
  CHECK(v.source_port == kPort);
  CHECK(v.destination == w.f.client);
  CHECK(v.destination_port == kClientPort);
  CHECK(v.ttl == 63);
  CHECK(v.payload == payload);
  CHECK(v.mac_destination == mac_of_client());
  CHECK(v.mac_source == mac_of_interface("clients0"));
  CHECK_FALSE(w.s.flow(w.f));
  CHECK(w.s.traffic_of_node(1).packets_out == before.packets_out + 1);
  const std::uint64_t bytes = 97 + (w.f.version == 4 ? 20U : 40U);
  CHECK(w.s.traffic_of_node(1).bytes_out == before.bytes_out + bytes);
  CHECK(w.s.traffic_of_service(kService).packets_out == service.packets_out + 1);
  CHECK(w.s.traffic_of_service(kService).bytes_out == service.bytes_out + bytes);
}

TEST_CASE("switch: without an entry nobody else speaks") {
  SWITCH_WORLD(w);
  const Result server =
      w.s.from_node(w.tcp_out(2, as_dispatcher({.flags = kAck, .payload = Bytes(1)})));
  CHECK(server.action == Action::kDrop);
  CHECK(server.counted == Counts{{"drop_not_owner", 1}, {"revoked", 1}});
  CHECK(w.s.from_node(w.tcp_out(2, as_dispatcher({.flags = kAck}))).counted ==
        Counts{{"drop_late_ack", 1}});
  CHECK(w.s.from_node(w.tcp_out(1, {.source = 8081, .flags = kAck})).counted ==
        Counts{{"drop_late_ack", 1}});  // not the service's port
  w.s.bind(w.f, 5);
  CHECK(w.s.from_node(w.tcp_out(1, as_dispatcher({.flags = kRst}))).counted ==
        Counts{{"drop_not_owner", 1}, {"revoked", 1}});
  CHECK(w.s.from_node(w.tcp_out(5, as_dispatcher({.flags = kSyn | kAck}))).counted ==
        Counts{{"from_node", 1}});
}

TEST_CASE("switch: the owner's first packet is the point of no return") {
  SWITCH_WORLD(w);
  w.s.set_flow(w.f, Rig::owned(2, 1, 77, false));
  const Result first = w.s.from_node(w.tcp_out(2, {.flags = kAck}));
  CHECK(first.action == Action::kRedirect);
  CHECK(first.counted == Counts{{"from_node", 1}, {"spoke", 1}});
  CHECK(first.view().source == w.f.vip);
  CHECK(first.view().source_port == kPort);
  const auto flow = w.s.flow(w.f).value();
  CHECK(flow.owner.is.spoke == 1);
  CHECK(flow.owner.is.owner == 2);
  CHECK(flow.owner.is.previous == 1);
  CHECK(flow.owner.is.generation == 77);
  CHECK(flow.owner.is.port == kTargetPort);
  CHECK(flow.packets_out == 1);
  CHECK(flow.bytes_out == (w.f.version == 4 ? 40 : 60));
  CHECK(w.s.from_node(w.tcp_out(2, {.flags = kAck})).counted == Counts{{"from_node", 1}});
}

TEST_CASE("switch: a packet that does not go out is not the owner's first") {
  SWITCH_WORLD(w);
  w.s.set_flow(w.f, Rig::owned(2, 1, 77, false));
  const Result r = w.s.from_node(w.tcp_out(2, {.flags = kAck}, 1));
  CHECK(r.counted == Counts{{"slow_path", 1}});
  CHECK(w.s.flow(w.f)->owner.is.spoke == 0);
  CHECK(w.s.flow(w.f)->packets_out == 0);
}

TEST_CASE("switch: one owner") {
  SWITCH_WORLD(w);
  const auto entry = Rig::owned(2, 1, 77, true);
  w.s.set_flow(w.f, entry);
  const auto dropped = [&](const Packet& packet) {
    const Result r = w.s.from_node(packet);
    CHECK(r.action == Action::kDrop);
    return r.counted;
  };
  const Counts late{{"drop_late_ack", 1}}, not_owner{{"drop_not_owner", 1}};
  CHECK(dropped(w.tcp_out(1, as_dispatcher({.flags = kAck}))) == late);
  CHECK(dropped(w.tcp_out(1, as_dispatcher({.flags = kAck, .payload = Bytes(1)}))) ==
        Counts{{"drop_not_owner", 1}, {"revoked", 1}});
  CHECK(dropped(w.tcp_out(1, as_dispatcher({.flags = kAck | kFin}))) == not_owner);
  CHECK(dropped(w.tcp_out(1, as_dispatcher({.flags = kAck | kRst}))) == not_owner);
  CHECK(dropped(w.tcp_out(1, as_dispatcher({.flags = kAck | kSyn}))) == not_owner);
  CHECK(dropped(w.tcp_out(1, as_dispatcher({.flags = kRst}))) == not_owner);
  CHECK(dropped(w.tcp_out(7, {.flags = kAck})) == late);
  CHECK(dropped(w.tcp_out(2, {.source = 8081, .flags = kAck})) ==
        late);  // another port of the owner
  CHECK(w.s.flow(w.f)->owner.word == entry.owner.word);
  CHECK(w.s.flow(w.f)->packets_out == 0);
}

TEST_CASE("switch: who has owned a flow that has ended has no voice any more") {
  SWITCH_WORLD(w);
  auto entry = Rig::owned(2, 1, 77, true);
  entry.marks.is.generation = 77;
  entry.marks.is.closing = 1;
  entry.closing_ns = 1;
  w.s.set_settings([](auto& settings) { settings.closing_ns = 1000000; });
  w.s.set_flow(w.f, entry);
  CHECK(w.s.from_node(w.tcp_out(2, {.flags = kAck})).counted == Counts{{"drop_late_ack", 1}});
  CHECK(w.s.from_node(w.tcp_out(2, {.flags = kAck | kFin})).counted ==
        Counts{{"drop_not_owner", 1}, {"revoked", 1}});
  CHECK(w.s.flow(w.f)->owner.word == entry.owner.word);
}

TEST_CASE("switch: a VPA is a source only on its node's interface") {
  SWITCH_WORLD(w);
  for (const int node : {4, 9}) {  // behind nodes1; unknown
    const Result r = w.s.from_node(w.tcp_out(node, as_dispatcher({.flags = kAck})));
    CHECK(r.action == Action::kDrop);
    CHECK(r.counted == Counts{{"drop_vpa_source", 1}});
  }
  w.s.set_flow(w.f, Rig::owned(4, 1, 77, true));
  CHECK(w.s.from_nodes1(w.tcp_out(4, {.flags = kAck})).counted == Counts{{"from_node", 1}});
  w.s.set_node(4, [](auto& node) { node.role = abi::NODE_NONE; });
  CHECK(w.s.from_nodes1(w.tcp_out(4, {.flags = kAck})).counted == Counts{{"drop_vpa_source", 1}});
}

TEST_CASE("switch: what a node may not send") {
  SWITCH_WORLD(w);
  const Ethernet ethernet{mac_of_interface("nodes0"), mac_of_node(1), {}};
  const auto dropped = [&](const Packet& packet) {
    const Result r = w.s.from_node(packet);
    CHECK(r.action == Action::kDrop);
    return r.counted;
  };
  const Tcp tcp{.source = kPort, .destination = kClientPort};
  CHECK(dropped(ethernet / ip(w.f.vpa(1), w.f.vpa(2)) / tcp) == Counts{{"drop_to_vpa", 1}});
  CHECK(dropped(ethernet / ip(w.f.node(1), w.f.vpa(2)) / tcp) == Counts{{"drop_to_vpa", 1}});
  CHECK(dropped(ethernet / ip(w.f.vpa(1), w.f.vip) / tcp) == Counts{{"drop_vpa_source", 1}});
  CHECK(dropped(ethernet / ip(w.f.vip, w.f.client) / tcp) == Counts{{"drop_vip_source", 1}});
  CHECK(dropped(ethernet / ip(w.f.vpa(1), w.f.client) / Udp{1, 2, {}, true, {}}) ==
        Counts{{"drop_not_tcp", 1}});
  CHECK(dropped(ethernet / ip(w.f.vpa(1), w.f.client) / Icmp{0, 0, 0, Bytes(8)}) ==
        Counts{{"drop_not_tcp", 1}});
  CHECK(dropped(ethernet / ip(w.f.vpa(1, 77), w.f.client) / tcp) == Counts{{"drop_no_service", 1}});
  CHECK(dropped(ethernet / ip(w.f.vpa(1, kNoVipService), w.f.client) / tcp) ==
        Counts{{"drop_no_service", 1}});
  CHECK(dropped(ethernet / ip(w.f.vpa(1, 0), w.f.client) / tcp) == Counts{{"drop_vpa_source", 1}});
  CHECK(dropped(w.tcp_out(1, {.flags = 0})) == Counts{{"drop_malformed", 1}});
  if (w.f.version == 4)
    CHECK(dropped(ethernet /
                  IPv4{.source = w.f.vpa(1), .destination = w.f.client, .fragment_offset = 3} /
                  tcp) == Counts{{"drop_fragment", 1}});
}

TEST_CASE("switch: a node may be a client of the service") {
  SWITCH_WORLD(w);
  const Packet packet = Ethernet{mac_of_interface("nodes0"), mac_of_node(2), {}} /
                        ip(w.f.node(2), w.f.vip) /
                        Tcp{.source = 1234, .destination = kPort, .flags = kSyn};
  const Result r = w.s.from_node(packet);
  CHECK(r.counted == Counts{{"to_dispatcher", 1}});
  CHECK(r.view().destination == w.f.vpa(1));
  CHECK(r.view().source == w.f.node(2));
  CHECK(r.view().mac_destination == mac_of_node(1));
}

TEST_CASE("switch: traffic of nodes that is not ours goes to the kernel") {
  SWITCH_WORLD(w);
  const Ethernet ethernet{mac_of_interface("nodes0"), mac_of_node(2), {}};
  const auto passed = [&](const Packet& packet) {
    const Result r = w.s.from_node(packet);
    CHECK(r.action == Action::kKernel);
    CHECK(r.frame == packet.bytes());
    CHECK(r.counted == Counts{{"passed", 1}});
  };
  passed(ethernet / ip(w.f.node(2), w.f.client) / Tcp{.source = 80, .destination = 99});
  passed(ethernet / ip(w.f.node(2), w.f.node(4)) / Udp{50000, kControlPort, Bytes(128), true, {}});
}

TEST_CASE("switch: a flow closes when both FINs are acknowledged") {
  SWITCH_WORLD(w);
  w.s.set_flow(w.f, Rig::owned(2, 1, 77, true));
  const auto in = [&](Tcp tcp) { return w.s.from_client(w.tcp_in(std::move(tcp))).counted; };
  const auto out = [&](Tcp tcp) { return w.s.from_node(w.tcp_out(2, std::move(tcp))).counted; };
  const auto marks = [&] { return w.s.flow(w.f)->marks.is; };
  const Counts to{{"to_owner", 1}}, from{{"from_node", 1}};
  SECTION("the owner first") {
    CHECK(out({.seq = 1000, .ack = 500, .flags = kFin | kAck, .payload = Bytes(10)}) == from);
    CHECK(w.s.flow(w.f)->owner_fin_end == 1011);
    CHECK(in({.seq = 500, .ack = 1010, .flags = kAck}) == to);  // the data only
    CHECK_FALSE(marks().owner_fin_acked);
    CHECK(in({.seq = 500, .ack = 1011, .flags = kAck}) == to);
    CHECK(marks().owner_fin_acked);
    CHECK(in({.seq = 500, .ack = 1011, .flags = kFin | kAck}) == to);
    CHECK_FALSE(marks().closing);
    CHECK(out({.seq = 1011, .ack = 500, .flags = kAck}) ==
          from);  // does not cover the client's FIN
    CHECK_FALSE(marks().closing);
    CHECK(out({.seq = 1011, .ack = 501, .flags = kAck}) == Counts{{"from_node", 1}, {"closed", 1}});
  }
  SECTION("the client first, sequence numbers that wrap") {
    CHECK(in({.seq = 0xfffffffe, .ack = 1000, .flags = kFin | kAck, .payload = Bytes(4)}) == to);
    CHECK(out({.seq = 1000, .ack = 3, .flags = kAck}) == from);
    CHECK(out({.seq = 1000, .ack = 3, .flags = kFin | kAck}) == from);
    CHECK_FALSE(marks().closing);
    CHECK(in({.seq = 3, .ack = 1001, .flags = kAck}) == Counts{{"to_owner", 1}, {"closed", 1}});
  }
  SECTION("both at once") {
    CHECK(out({.seq = 1000, .ack = 500, .flags = kFin | kAck}) == from);
    CHECK(in({.seq = 500, .ack = 1000, .flags = kFin | kAck}) == to);
    CHECK(in({.seq = 501, .ack = 1001, .flags = kAck}) == to);
    CHECK(out({.seq = 1001, .ack = 501, .flags = kAck}) == Counts{{"from_node", 1}, {"closed", 1}});
  }
  CHECK(marks().closing);
  CHECK(marks().generation == 77);
  const auto closing = w.s.flow(w.f)->closing_ns;
  CHECK(now_ns() - closing < 10000000000);
  CHECK(out({.flags = kRst}) == from);  // closing begins once
  CHECK(w.s.flow(w.f)->closing_ns == closing);
}

TEST_CASE("switch: a FIN that was made up in the client's name closes nothing") {
  SWITCH_WORLD(w);
  w.s.set_flow(w.f, Rig::owned(2, 1, 77, true));
  w.s.from_node(w.tcp_out(2, {.seq = 1000, .ack = 500, .flags = kFin | kAck}));
  for (const std::uint32_t seq : {900000U, 7U, 498U}) {  // beyond the window, and before it
    w.s.from_client(w.tcp_in({.seq = seq, .ack = 1001, .flags = kFin | kAck}));
    w.s.from_node(w.tcp_out(2, {.seq = 1001, .ack = 500, .flags = kAck}));
    CHECK_FALSE(w.s.flow(w.f)->marks.is.closing);
  }
  // the client's own
  w.s.from_client(w.tcp_in({.seq = 500, .ack = 1001, .flags = kFin | kAck}));
  w.s.from_node(w.tcp_out(2, {.seq = 1001, .ack = 501, .flags = kAck}));
  CHECK(w.s.flow(w.f)->marks.is.closing);
}

TEST_CASE("switch: the owner's RST closes at once") {
  SWITCH_WORLD(w);
  auto entry = Rig::owned(2, 1, 78, true);
  entry.marks.is.generation = 77;  // what the former owner left behind counts no more
  entry.marks.is.owner_fin = entry.marks.is.client_fin = 1;
  w.s.set_flow(w.f, entry);
  CHECK(w.s.from_node(w.tcp_out(2, {.flags = kRst | kAck})).counted ==
        Counts{{"from_node", 1}, {"closed", 1}});
  const auto marks = w.s.flow(w.f)->marks.is;
  CHECK(marks.closing);
  CHECK(marks.generation == 78);
  CHECK_FALSE(marks.owner_fin);
  CHECK_FALSE(marks.client_fin);
}
