// SPDX-License-Identifier: MIT
// Clients -> switch: to a dispatcher, to the owner, and what is dropped.
#include "bpf/lib_host.hpp"
#include "bpf/switch_rig.hpp"

using namespace rig;
using namespace packets;

TEST_CASE("switch: a SYN goes to the dispatcher and makes no flow entry") {
  SWITCH_WORLD(w);
  const Result r = w.s.from_client(w.tcp_in({.seq = 1000, .flags = kSyn}));
  CHECK(r.action == Action::kRedirect);
  CHECK(r.counted == Counts{{"to_dispatcher", 1}});
  const View v = r.view();
  CHECK(v.source == w.f.client);
  CHECK(v.destination == w.f.vpa(1));
  CHECK(v.source_port == kClientPort);
  CHECK(v.destination_port == kPort);
  CHECK(v.ttl == 63);
  CHECK(v.seq == 1000);
  CHECK(v.flags == kSyn);
  CHECK(v.mac_destination == mac_of_node(1));
  CHECK(v.mac_source == mac_of_interface("nodes0"));
  CHECK_FALSE(w.s.flow(w.f));
  REQUIRE(w.s.bound(w.f));
  CHECK(w.s.bound(w.f)->dispatcher == 1);
  CHECK(w.s.bound(w.f)->service == kService);
}

TEST_CASE("switch: data of a connection without an entry goes to its dispatcher") {
  SWITCH_WORLD(w);
  w.s.bind(w.f, 5);  // Maglev says 1
  const Result r = w.s.from_client(w.tcp_in({.flags = kAck | kPsh, .payload = Bytes(101, 'x')}));
  CHECK(r.counted == Counts{{"to_dispatcher", 1}});
  CHECK(r.view().destination == w.f.vpa(5));
  CHECK(r.view().mac_destination == mac_of_node(5));
}

TEST_CASE("inward: a port used again does not lead to a dispatcher that drains") {
  SWITCH_WORLD(w);
  const bool draining = GENERATE(false, true);
  const std::uint32_t five = 5;
  tcpmig::sys::map_update(w.s.map("liveness"), five,
                          abi::node_liveness{.heard_ns = now_ns(),
                                             .since_ns = now_ns(),
                                             .instance = 1,
                                             .draining = draining,
                                             .replaced = 0,
                                             .pad = {}});
  w.s.bind(w.f, 5);  // Maglev says 1
  const auto goes_to = [&](std::uint32_t seq, std::uint8_t flags) {
    w.s.from_client(w.tcp_in({.seq = seq, .flags = flags}));
    return w.s.bound(w.f)->dispatcher;
  };
  CHECK(goes_to(70'000, kSyn) == 5);
  CHECK(goes_to(70'000, kSyn) == 5);  // the same once more
  CHECK(goes_to(70'001, kAck) == 5);
  CHECK(goes_to(70'000, kSyn) == 5);  // overtaken by what came after it
  CHECK(w.s.bound(w.f)->acked == 1);
  CHECK(goes_to(70'001, kFin | kAck) == 5);
  CHECK(goes_to(90'000, kSyn) == (draining ? 1 : 5));
  CHECK(w.s.bound(w.f)->acked == 0);
}

TEST_CASE("switch: a binding to what is no dispatcher any more is replaced") {
  SWITCH_WORLD(w);
  w.s.bind(w.f, 2);
  CHECK(w.s.from_client(w.tcp_in({.flags = kSyn})).view().destination == w.f.vpa(1));
  CHECK(w.s.bound(w.f)->dispatcher == 1);
}

TEST_CASE("switch: Maglev's slot is the SipHash of the flow key") {
  SWITCH_WORLD(w);
  const abi::siphash_key key{11, 22};
  for (std::uint16_t port = 1000; port < 1020; port++) {
    alignas(8) const abi::flow_key flow = key_of(w.f, port);
    const std::uint32_t slot =
        static_cast<std::uint32_t>(abi::siphash_words(&key, &flow, 5) % abi::MAGLEV_SIZE);
    const std::uint32_t five = 5;
    tcpmig::sys::map_update(w.s.map("maglev"), slot, five);
    const Result r = w.s.from_client(w.tcp_in({.source = port, .flags = kSyn}));
    CHECK(r.view().destination == w.f.vpa(5));
  }
}

TEST_CASE("switch: no dispatcher") {
  SWITCH_WORLD(w);
  w.s.set_node(1, [](auto& node) { node.role = abi::NODE_SERVER; });
  const Result r = w.s.from_client(w.tcp_in({.flags = kSyn}));
  CHECK(r.action == Action::kDrop);
  CHECK(r.counted == Counts{{"drop_no_dispatcher", 1}});
}

TEST_CASE("switch: packets of an owned flow go to the owner and its port") {
  SWITCH_WORLD(w);
  auto entry = Rig::owned(2, 1, 77, false);
  entry.last_seen_ns -= 1000000000;
  w.s.set_flow(w.f, entry);
  const Bytes payload(333, 'y');
  const auto before = w.s.traffic_of_node(2), service = w.s.traffic_of_service(kService);
  const Result r =
      w.s.from_client(w.tcp_in({.seq = 5, .ack = 6, .flags = kAck, .payload = payload}));
  CHECK(r.action == Action::kRedirect);
  CHECK(r.counted == Counts{{"to_owner", 1}});
  const View v = r.view();
  CHECK(v.destination == w.f.vpa(2));
  CHECK(v.destination_port == kTargetPort);
  CHECK(v.source_port == kClientPort);
  CHECK(v.payload == payload);
  CHECK(v.mac_destination == mac_of_node(2));
  const auto flow = w.s.flow(w.f).value();
  CHECK(flow.owner.word == entry.owner.word);  // a client's packet is no word of the owner's
  CHECK(flow.packets_in == 1);
  CHECK(flow.bytes_in == 20 + 333 + (w.f.version == 4 ? 20 : 40));
  CHECK(flow.packets_out == 0);
  CHECK(flow.last_seen_ns > entry.last_seen_ns + 900000000);
  CHECK(w.s.traffic_of_node(2).packets_in == before.packets_in + 1);
  CHECK(w.s.traffic_of_node(2).bytes_in == before.bytes_in + flow.bytes_in);
  CHECK(w.s.traffic_of_service(kService).packets_in == service.packets_in + 1);
  CHECK(w.s.traffic_of_service(kService).bytes_in == service.bytes_in + flow.bytes_in);
  CHECK(w.s.traffic_of_service(kService).packets_out == service.packets_out);
  CHECK_FALSE(w.s.bound(w.f));
}

TEST_CASE("switch: one client port at two VIPs is two flows") {
  SWITCH_WORLD(w);
  const std::uint32_t service = kService;
  const packets::Address other = w.f.elsewhere;  // the same service, at a second address
  tcpmig::sys::map_update(w.s.map("vips"), abi::vip_key{other.raw(), htons(kPort), {}}, service);
  w.s.set_flow(w.f, Rig::owned(2, 1, 77, true));
  const auto to = [&](const packets::Address& vip) {
    return w.s.from_client(packets::Ethernet{mac_of_interface("clients0"), mac_of_client(), {}} /
                           packets::ip(w.f.client, vip, 64) /
                           Tcp{.source = kClientPort, .destination = kPort, .flags = kAck});
  };
  CHECK(to(w.f.vip).counted == Counts{{"to_owner", 1}});
  CHECK(to(other).counted == Counts{{"to_dispatcher", 1}});
  CHECK(w.s.flow(w.f)->packets_in == 1);
}

TEST_CASE("switch: an entry does not outlive its service, nor the service's address") {
  SWITCH_WORLD(w);
  w.s.set_flow(w.f, Rig::owned(2, 1, 77, true));
  const std::uint32_t id = kService;
  auto service = tcpmig::sys::map_lookup<abi::service_entry>(w.s.map("services"), id).value();
  SECTION("the service has gone") { service.used = 0; }
  SECTION("it has another address") { service.vip4 = service.vip6 = w.f.elsewhere.raw(); }
  SECTION("it has another port") { service.port = htons(kPort + 1); }
  tcpmig::sys::map_update(w.s.map("services"), id, service);
  tcpmig::sys::map_delete(w.s.map("vips"), abi::vip_key{w.f.vip.raw(), htons(kPort), {}});
  tcpmig::sys::map_delete(w.s.map("vips"), abi::vip_key{w.f.vip.raw(), 0, {}});
  const Result r = w.s.from_client(w.tcp_in({.flags = kAck}));
  CHECK(r.action == Action::kKernel);
  CHECK(r.counted == Counts{{"passed", 1}});
  CHECK(w.s.flow(w.f)->packets_in == 0);
}

TEST_CASE("switch: dead entries are treated as absent") {
  SWITCH_WORLD(w);
  auto entry = Rig::owned(2, 1, 77, true);
  SECTION("the idle lease has run out") {
    w.s.set_settings([](auto& settings) { settings.idle_ns = 1000000; });
    entry.last_seen_ns -= 100000000;
  }
  SECTION("closing is over") {
    w.s.set_settings([](auto& settings) { settings.closing_ns = 1000000; });
    entry.marks.is.generation = 77;
    entry.marks.is.closing = 1;
    entry.closing_ns = entry.last_seen_ns - 100000000;
  }
  SECTION("nobody owns it") { entry.owner.is.owner = 0, entry.owner.is.spoke = 0; }
  w.s.set_flow(w.f, entry);
  const Result r = w.s.from_client(w.tcp_in({.flags = kAck}));
  CHECK(r.counted == Counts{{"to_dispatcher", 1}});
  CHECK(r.view().destination == w.f.vpa(1));
  CHECK(w.s.flow(w.f)->packets_in == 0);
}

TEST_CASE("switch: marks of another generation do not close an entry") {
  SWITCH_WORLD(w);
  w.s.set_settings([](auto& settings) { settings.closing_ns = 1; });
  auto entry = Rig::owned(2, 1, 78, true);
  entry.marks.is.generation = 77;
  entry.marks.is.closing = 1;
  w.s.set_flow(w.f, entry);
  CHECK(w.s.from_client(w.tcp_in({.flags = kAck})).counted == Counts{{"to_owner", 1}});
}

TEST_CASE("switch: a SYN on a closing entry is a new connection") {
  SWITCH_WORLD(w);
  auto entry = Rig::owned(2, 1, 77, true);
  entry.marks.is.generation = 77;
  entry.marks.is.closing = 1;
  entry.closing_ns = now_ns();
  w.s.set_flow(w.f, entry);
  CHECK(w.s.from_client(w.tcp_in({.flags = kAck})).counted == Counts{{"to_owner", 1}});
  const Result r = w.s.from_client(w.tcp_in({.flags = kSyn}));
  CHECK(r.counted == Counts{{"reopened", 1}, {"to_dispatcher", 1}});
  CHECK(r.view().destination == w.f.vpa(1));
  const auto flow = w.s.flow(w.f).value();
  CHECK(flow.owner.is.owner == 0);
  CHECK(flow.owner.is.previous == 0);
  CHECK(flow.owner.is.spoke == 0);
  CHECK(flow.owner.is.generation == 77);
  CHECK(w.s.from_client(w.tcp_in({.flags = kAck})).counted == Counts{{"to_dispatcher", 1}});
}

TEST_CASE("switch: a SYN on a live entry is the owner's to judge") {
  SWITCH_WORLD(w);
  const auto entry = Rig::owned(2, 1, 77, true);
  w.s.set_flow(w.f, entry);
  const Result r = w.s.from_client(w.tcp_in({.flags = kSyn}));
  CHECK(r.counted == Counts{{"syn_live", 1}});
  CHECK(r.view().destination == w.f.vpa(2));
  CHECK(r.view().destination_port == kTargetPort);
  CHECK(w.s.flow(w.f)->owner.word == entry.owner.word);
}

TEST_CASE("switch: the client's FIN and RST are marks only") {
  SWITCH_WORLD(w);
  w.s.set_flow(w.f, Rig::owned(2, 1, 77, true));
  CHECK(
      w.s.from_client(w.tcp_in({.seq = 100, .flags = kFin | kAck, .payload = Bytes(9)})).counted ==
      Counts{{"to_owner", 1}});
  CHECK(w.s.from_client(w.tcp_in({.flags = kRst})).counted == Counts{{"to_owner", 1}});
  const auto flow = w.s.flow(w.f).value();
  CHECK(flow.marks.is.generation == 77);
  CHECK(flow.marks.is.client_fin);
  CHECK(flow.marks.is.client_rst);
  CHECK(flow.client_fin_end == 110);
  CHECK_FALSE(flow.marks.is.closing);
}

TEST_CASE("switch: what a client may not send") {
  SWITCH_WORLD(w);
  const Ethernet ethernet{mac_of_interface("clients0"), mac_of_client(), {}};
  const auto dropped = [&](const Packet& packet) {
    const Result r = w.s.from_client(packet);
    CHECK(r.action == Action::kDrop);
    return r.counted;
  };
  const Tcp tcp{.source = kClientPort, .destination = kPort, .flags = kSyn};
  const Udp control{50000, kControlPort, Bytes(128), true, {}};
  CHECK(dropped(ethernet / ip(w.f.client, w.f.vpa(2)) / tcp) == Counts{{"drop_to_vpa", 1}});
  CHECK(dropped(ethernet / ip(w.f.client, w.f.vpa(2)) / control) == Counts{{"drop_to_vpa", 1}});
  CHECK(dropped(ethernet / ip(w.f.vpa(2), w.f.vip) / tcp) == Counts{{"drop_vpa_source", 1}});
  CHECK(dropped(ethernet / ip(w.f.vpa(2), w.f.elsewhere) / tcp) == Counts{{"drop_vpa_source", 1}});
  CHECK(dropped(ethernet / ip(w.f.vip, w.f.vip) / tcp) == Counts{{"drop_vip_source", 1}});
  CHECK(dropped(ethernet / ip(w.f.vip, w.f.elsewhere) / tcp) == Counts{{"drop_vip_source", 1}});
  CHECK(dropped(ethernet / ip(w.f.client, w.f.own_nodes) / control) ==
        Counts{{"drop_control_from_clients", 1}});
  CHECK(dropped(ethernet / ip(w.f.client, w.f.node(2)) / control) ==
        Counts{{"drop_control_from_clients", 1}});
  const Tcp other{.source = kClientPort, .destination = 81, .flags = kSyn};
  CHECK(dropped(ethernet / ip(w.f.client, w.f.vip) / other) == Counts{{"drop_no_service", 1}});
  CHECK(dropped(ethernet / ip(w.f.client, w.f.vip) / Udp{1, kPort, {}, true, {}}) ==
        Counts{{"drop_not_tcp", 1}});
  CHECK(dropped(ethernet / ip(w.f.client, w.f.vip) / Bytes(8)) == Counts{{"drop_not_tcp", 1}});
  const std::uint8_t echo = w.f.version == 4 ? 8 : 128;
  CHECK(dropped(ethernet / ip(w.f.client, w.f.vip) / Icmp{echo, 0, 1, Bytes(8)}) ==
        Counts{{"drop_not_tcp", 1}});
}

TEST_CASE("switch: what is not ours goes to the kernel untouched") {
  SWITCH_WORLD(w);
  const Ethernet ethernet{mac_of_interface("clients0"), mac_of_client(), {}};
  const auto passed = [&](const Packet& packet) {
    const Result r = w.s.from_client(packet);
    CHECK(r.action == Action::kKernel);
    CHECK(r.frame == packet.bytes());
    CHECK(r.counted == Counts{{"passed", 1}});
  };
  passed(ethernet / ip(w.f.client, w.f.node(2)) /
         Tcp{.source = 1, .destination = 80, .flags = kSyn});
  passed(ethernet / ip(w.f.client, w.f.node(2)) / Udp{1, 53, {}, true, {}});
  passed(ethernet / ip(w.f.client, w.f.elsewhere) / Udp{1, kControlPort, {}, true, {}});
  Packet arp =
      ethernet / ip(w.f.client, w.f.vip) / Tcp{.source = 1, .destination = 80, .flags = kSyn};
  arp.ethernet.type = 0x0806;
  passed(arp);
  Packet vlan = arp;
  vlan.ethernet.type = 0x8100;
  passed(vlan);
  Packet multicast = arp;
  multicast.ethernet = {{1, 0, 0x5e, 0, 0, 1}, mac_of_client(), {}};
  passed(multicast);
}

TEST_CASE("switch: what may hide a control datagram does not come in from clients") {
  SWITCH_WORLD(w);
  const Ethernet ethernet{mac_of_interface("clients0"), mac_of_client(), {}};
  const Udp udp{50000, kControlPort, Bytes(128), true, {}};
  const Counts dropped{{"drop_control_from_clients", 1}}, passed{{"passed", 1}};
  for (const Address& to : {w.f.node(2), w.f.own_nodes}) {
    const auto counted = [&](const Ip& header, const Transport& transport) {
      return w.s.from_client(ethernet / header / transport).counted;
    };
    if (w.f.version == 4) {
      // a later fragment holds no ports, and the first one did not pass
      IPv4 header{.source = w.f.client, .destination = to, .more_fragments = true};
      CHECK(counted(header, udp) == dropped);
      header.fragment_offset = 10;
      CHECK(counted(header, udp) == passed);
      header = IPv4{.source = w.f.client, .destination = to, .protocol = 17};
      CHECK(counted(header, Bytes(7)) == dropped);
      continue;
    }
    const auto with = [&](std::vector<Extension> extensions) {
      return IPv6{.source = w.f.client,
                  .destination = to,
                  .extensions = std::move(extensions),
                  .protocol = {},
                  .payload_length = {}};
    };
    const Extension options{60, Bytes(7)};
    CHECK(counted(with({options, options}), udp) == dropped);
    CHECK(counted(with({options, options}), Udp{1, 53, {}, true, {}}) == passed);
    // a fifth is not walked, whatever follows; nor is a routing header that leads on
    CHECK(counted(with({options, options, options, options, options}), udp) == dropped);
    CHECK(counted(with({{43, {0, 0, 1, 0, 0, 0, 0}}}), udp) == dropped);
    CHECK(counted(with({{60, {200, 0, 0, 0, 0, 0, 0}}}), udp) ==
          dropped);  // longer than the packet
    CHECK(counted(with({{44, {0, 0, 1, 0, 0, 0, 7}}, options}), udp) == dropped);  // the first one
    CHECK(counted(with({{44, {0, 0, 16, 0, 0, 0, 7}}}), udp) == passed);           // a later one
  }
}

TEST_CASE("switch: a frame for another host's MAC is not routed") {
  SWITCH_WORLD(w);
  if (w.s.backend() == Backend::kXdp) return;  // XDP cannot know its MAC; NICs filter
  Packet packet = w.tcp_in({.flags = kSyn});
  packet.ethernet.destination = mac_of_node(7);
  CHECK(w.s.from_client(packet).action == Action::kKernel);
}

TEST_CASE("switch: fragments for a VIP are dropped") {
  SWITCH_WORLD(w);
  const Ethernet ethernet{mac_of_interface("clients0"), mac_of_client(), {}};
  const Tcp tcp{.source = kClientPort, .destination = kPort, .flags = kAck, .payload = Bytes(64)};
  const auto counted = [&](const Ip& header) {
    return w.s.from_client(ethernet / header / tcp).counted;
  };
  if (w.f.version == 4) {
    CHECK(counted(IPv4{.source = w.f.client, .destination = w.f.vip, .more_fragments = true}) ==
          Counts{{"drop_fragment", 1}});
    CHECK(counted(IPv4{.source = w.f.client, .destination = w.f.vip, .fragment_offset = 10}) ==
          Counts{{"drop_fragment", 1}});
    return;
  }
  const auto fragment = [&](std::uint8_t low) {
    return IPv6{.source = w.f.client,
                .destination = w.f.vip,
                .extensions = {{44, {0, 0, low, 0, 0, 0, 7}}},
                .protocol = {},
                .payload_length = {}};
  };
  CHECK(counted(fragment(1)) == Counts{{"drop_fragment", 1}});   // first, more to come
  CHECK(counted(fragment(16)) == Counts{{"drop_fragment", 1}});  // last
  CHECK(counted(fragment(0)) == Counts{{"to_dispatcher", 1}});   // atomic: no fragment
}

TEST_CASE("switch: malformed TCP is dropped") {
  SWITCH_WORLD(w);
  const auto counted = [&](const Tcp& tcp) { return w.s.from_client(w.tcp_in(tcp)).counted; };
  const Counts malformed{{"drop_malformed", 1}};
  CHECK(counted({.flags = kSyn, .options = {}, .offset = 4}) == malformed);
  CHECK(counted({.flags = kSyn, .options = {}, .offset = 6}) == malformed);  // beyond the packet
  CHECK(counted({.flags = kSyn | kFin}) == malformed);
  CHECK(counted({.flags = kSyn | kRst}) == malformed);
  CHECK(counted({.flags = 0}) == malformed);
  CHECK(counted({.flags = kSyn | kFin | kRst | kAck | kPsh | kUrg}) == malformed);
  CHECK(counted({.flags = kSyn | kAck}) == Counts{{"to_dispatcher", 1}});
  Packet cut = w.tcp_in({.flags = kAck});
  cut.transport = Bytes(19);  // shorter than a TCP header
  std::visit([](auto& header) { header.protocol = 6; }, cut.network);
  CHECK(w.s.from_client(cut).counted == malformed);
  Packet longer = w.tcp_in({.flags = kAck});  // says that it is longer than the frame
  if (auto* v4 = std::get_if<IPv4>(&longer.network)) v4->total_length = 100;
  if (auto* v6 = std::get_if<IPv6>(&longer.network)) v6->payload_length = 100;
  CHECK(w.s.from_client(longer).counted == malformed);
}

TEST_CASE("switch: Ethernet padding is no data") {
  SWITCH_WORLD(w);
  w.s.set_flow(w.f, Rig::owned(2, 1, 77, true));
  Bytes frame = w.tcp_in({.flags = kAck}).bytes();
  frame.resize(frame.size() + 6);
  const Result r = w.s.run("clients", "clients0", frame);
  CHECK(r.counted == Counts{{"to_owner", 1}});
  CHECK(w.s.flow(w.f)->bytes_in == (w.f.version == 4 ? 40 : 60));
}

TEST_CASE("switch: IP options and IPv6 extension headers") {
  SWITCH_WORLD(w);
  const Ethernet ethernet{mac_of_interface("clients0"), mac_of_client(), {}};
  const Tcp tcp{.source = kClientPort,
                .destination = kPort,
                .flags = kAck,
                .payload = Bytes(5, 'z'),
                .options = Bytes(12, 1),
                .offset = {}};
  Ip header = IPv4{.source = w.f.client, .destination = w.f.vip, .options = Bytes(40, 1)};
  if (w.f.version == 6)
    header = IPv6{.source = w.f.client,
                  .destination = w.f.vip,
                  .extensions = {{0, Bytes(7)},
                                 {60, {1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}},
                                 {43, {0, 0, 0, 0, 0, 0, 0}},
                                 {60, Bytes(7)}},
                  .protocol = {},
                  .payload_length = {}};
  w.s.set_flow(w.f, Rig::owned(2, 1, 77, true));
  const Result r = w.s.from_client(ethernet / header / tcp);
  CHECK(r.counted == Counts{{"to_owner", 1}});
  const View v = r.view();
  CHECK(v.destination == w.f.vpa(2));
  CHECK(v.destination_port == kTargetPort);
  CHECK(v.payload == tcp.payload);
  if (w.f.version == 4) return;
  auto& v6 = std::get<IPv6>(header);
  v6.extensions.push_back({60, Bytes(7)});  // a fifth is not walked
  CHECK(w.s.from_client(ethernet / header / tcp).counted == Counts{{"drop_not_tcp", 1}});
  v6.extensions = {{43, {0, 0, 1, 0, 0, 0, 0}}};  // segments left
  CHECK(w.s.from_client(ethernet / header / tcp).counted == Counts{{"drop_not_tcp", 1}});
}
