// SPDX-License-Identifier: MIT
// ICMP errors in both directions: outer header, quote, and every checksum.
#include "bpf/switch_rig.hpp"

using namespace rig;
using namespace packets;

namespace {

constexpr std::uint8_t kTooBig4 = 3, kTooBig6 = 2;

Icmp too_big(const Family& f, Bytes quote) {
  return {f.version == 4 ? kTooBig4 : kTooBig6, static_cast<std::uint8_t>(f.version == 4 ? 4 : 0),
          1280, std::move(quote)};
}

/// A packet of the service as a router between switch and client saw it.
Bytes quote_of_service(const Family& f, std::size_t bytes) {
  Packet packet =
      Ethernet{} / ip(f.vip, f.client, 60) /
      Tcp{.source = kPort, .destination = kClientPort, .seq = 4711, .payload = Bytes(30, 'q')};
  Bytes quote = packet.ip_bytes();
  quote.resize(std::min(bytes, quote.size()));
  return quote;
}

/// A packet of the client as a node saw it.
Bytes quote_of_client(const Family& f, int node, std::uint16_t port, std::size_t bytes) {
  Packet packet =
      Ethernet{} / ip(f.client, f.vpa(node), 60) /
      Tcp{.source = kClientPort, .destination = port, .seq = 4711, .payload = Bytes(30, 'q')};
  Bytes quote = packet.ip_bytes();
  quote.resize(std::min(bytes, quote.size()));
  return quote;
}

Packet from_router(const World& w, const Icmp& icmp) {
  return Ethernet{mac_of_interface("clients0"), mac_of_client(), {}} / ip(w.f.far, w.f.vip) / icmp;
}

Packet from_vpa(const World& w, int node, const Icmp& icmp) {
  return Ethernet{mac_of_interface("nodes0"), mac_of_node(node), {}} /
         ip(w.f.vpa(node), w.f.client) / icmp;
}

}  // namespace

TEST_CASE("switch: an ICMP error to the VIP goes to the owner, with its quote") {
  SWITCH_WORLD(w);
  w.s.set_flow(w.f, Rig::owned(2, 1, 77, false));
  const std::size_t header = w.f.version == 4 ? 20 : 40;
  // 8 bytes of TCP; up to just before and just after its checksum; all of it
  for (const std::size_t tcp : {8U, 17U, 18U, 20U, 50U}) {
    INFO(tcp << " bytes of TCP are quoted");
    const Result r =
        w.s.from_client(from_router(w, too_big(w.f, quote_of_service(w.f, header + tcp))));
    CHECK(r.action == Action::kRedirect);
    CHECK(r.counted == Counts{{"icmp_translated", 1}});
    const View v = r.view();
    CHECK(v.source == w.f.far);
    CHECK(v.destination == w.f.vpa(2));
    CHECK(v.ttl == 63);
    CHECK(v.mac_destination == mac_of_node(2));
    CHECK(v.payload.size() == header + tcp);
    const View quote = read_ip(v.payload, false);
    CHECK(quote.fault == "");
    CHECK(quote.source == w.f.vpa(2));
    CHECK(quote.source_port == kTargetPort);
    CHECK(quote.destination == w.f.client);
    CHECK(quote.destination_port == kClientPort);
    CHECK(quote.ttl == 60);
  }
  CHECK(w.s.flow(w.f)->owner.is.spoke == 0);
}

TEST_CASE("switch: an ICMP error without an entry goes to the dispatcher") {
  SWITCH_WORLD(w);
  w.s.bind(w.f, 5);
  const Result r = w.s.from_client(from_router(w, too_big(w.f, quote_of_service(w.f, 80))));
  CHECK(r.counted == Counts{{"icmp_translated", 1}});
  const View quote = read_ip(r.view().payload, false);
  CHECK(r.view().destination == w.f.vpa(5));
  CHECK(quote.source == w.f.vpa(5));
  CHECK(quote.source_port == kPort);
}

TEST_CASE("switch: an ICMP error binds nothing") {
  SWITCH_WORLD(w);
  CHECK(w.s.from_client(from_router(w, too_big(w.f, quote_of_service(w.f, 80)))).counted ==
        Counts{{"icmp_translated", 1}});
  CHECK_FALSE(w.s.bound(w.f));
  w.s.set_node(1, [](auto& node) { node.role = abi::NODE_NONE; });
  CHECK(w.s.from_client(from_router(w, too_big(w.f, quote_of_service(w.f, 80)))).counted ==
        Counts{{"drop_no_dispatcher", 1}});
}

TEST_CASE("switch: quotes that are none of ours") {
  SWITCH_WORLD(w);
  w.s.set_flow(w.f, Rig::owned(2, 1, 77, false));
  const auto counted = [&](const Packet& quoted, std::size_t bytes) {
    Bytes quote = quoted.ip_bytes();
    quote.resize(std::min(bytes, quote.size()));
    const Result r = w.s.from_client(from_router(w, too_big(w.f, quote)));
    CHECK(r.action == Action::kDrop);
    return r.counted;
  };
  const std::size_t header = w.f.version == 4 ? 20 : 40;
  const Tcp tcp{.source = kPort, .destination = kClientPort};
  const Counts not_tcp{{"drop_not_tcp", 1}}, malformed{{"drop_malformed", 1}};
  CHECK(counted(Ethernet{} / ip(w.f.vip, w.f.client) / Udp{kPort, kClientPort, {}, true, {}}, 99) ==
        not_tcp);
  CHECK(counted(Ethernet{} / ip(w.f.node(2), w.f.client) / tcp, 99) == not_tcp);  // not of the VIP
  CHECK(counted(Ethernet{} / ip(w.f.vip, w.f.client) / Tcp{.source = 81, .destination = 7}, 99) ==
        not_tcp);
  CHECK(counted(Ethernet{} / ip(w.f.vip, w.f.client) / tcp, header + 7) == malformed);
  CHECK(counted(Ethernet{} / ip(w.f.vip, w.f.client) / tcp, 10) == malformed);
  if (w.f.version == 4) {
    CHECK(counted(Ethernet{} /
                      IPv4{.source = w.f.vip, .destination = w.f.client, .fragment_offset = 5} /
                      tcp,
                  99) == not_tcp);
    const Packet options =
        Ethernet{} / IPv4{.source = w.f.vip, .destination = w.f.client, .options = Bytes(12, 1)} /
        tcp;
    const Result r = w.s.from_client(from_router(w, too_big(w.f, options.ip_bytes())));
    CHECK(r.counted == Counts{{"icmp_translated", 1}});
    CHECK(read_ip(r.view().payload, false).source == w.f.vpa(2));
    CHECK(read_ip(r.view().payload, false).fault == "");
  }
}

TEST_CASE("switch: only errors are translated") {
  SWITCH_WORLD(w);
  w.s.set_flow(w.f, Rig::owned(2, 1, 77, false));
  for (int type = 0; type < 256; type++) {
    const bool error =
        w.f.version == 4 ? type == 3 || type == 11 || type == 12 : type >= 1 && type <= 4;
    const Icmp icmp{static_cast<std::uint8_t>(type), 0, 0, quote_of_service(w.f, 80)};
    INFO("type " << type);
    CHECK(w.s.from_client(from_router(w, icmp)).counted ==
          (error ? Counts{{"icmp_translated", 1}} : Counts{{"drop_not_tcp", 1}}));
  }
}

TEST_CASE("switch: an ICMP error of the owner goes out as the VIP's, and is its first word") {
  SWITCH_WORLD(w);
  w.s.set_flow(w.f, Rig::owned(2, 1, 77, false));
  const Result r =
      w.s.from_node(from_vpa(w, 2, too_big(w.f, quote_of_client(w.f, 2, kTargetPort, 88))));
  CHECK(r.action == Action::kRedirect);
  CHECK(r.counted == Counts{{"icmp_translated", 1}, {"spoke", 1}});
  const View v = r.view();
  CHECK(v.source == w.f.vip);
  CHECK(v.destination == w.f.client);
  CHECK(v.mac_destination == mac_of_client());
  const View quote = read_ip(v.payload, false);
  CHECK(quote.fault == "");
  CHECK(quote.source == w.f.client);
  CHECK(quote.destination == w.f.vip);
  CHECK(quote.destination_port == kPort);
  CHECK(quote.source_port == kClientPort);
  CHECK(w.s.flow(w.f)->owner.is.spoke == 1);
}

TEST_CASE("switch: an ICMP error of anyone else is dropped") {
  SWITCH_WORLD(w);
  const auto counted = [&](int node, std::uint16_t port) {
    return w.s.from_node(from_vpa(w, node, too_big(w.f, quote_of_client(w.f, node, port, 88))))
        .counted;
  };
  CHECK(counted(2, kTargetPort) ==
        Counts{{"drop_not_owner", 1}});  // no entry: a server has no voice
  CHECK(counted(1, kPort) == Counts{{"icmp_translated", 1}});
  w.s.set_flow(w.f, Rig::owned(2, 1, 77, false));
  CHECK(counted(1, kPort) == Counts{{"drop_not_owner", 1}});
  CHECK(counted(2, 8081) == Counts{{"drop_not_owner", 1}});
  CHECK(w.s.flow(w.f)->owner.is.spoke == 0);
  // the quote must be of a packet to the very address that complains
  CHECK(w.s.from_node(from_vpa(w, 2, too_big(w.f, quote_of_client(w.f, 3, kTargetPort, 88))))
            .counted == Counts{{"drop_not_tcp", 1}});
}

TEST_CASE("switch: an ICMP error of a router on the inside goes out as the VIP's") {
  SWITCH_WORLD(w);
  w.s.set_flow(w.f, Rig::owned(2, 1, 77, false));
  const auto from = [&](const Address& router, const Icmp& icmp) {
    return w.s.from_node(Ethernet{mac_of_interface("nodes0"), mac_of_node(2), {}} /
                         ip(router, w.f.client) / icmp);
  };
  const auto about = [&](int node, std::uint16_t port) {
    return too_big(w.f, quote_of_client(w.f, node, port, 88));
  };
  for (const Address& router : {w.f.node(2), w.f.elsewhere}) {
    const Result r = from(router, about(2, kTargetPort));
    CHECK(r.action == Action::kRedirect);
    CHECK(r.counted == Counts{{"icmp_translated", 1}});
    const View v = r.view();
    CHECK(v.source == w.f.vip);
    CHECK(v.destination == w.f.client);
    const View quote = read_ip(v.payload, false);
    CHECK(quote.fault == "");
    CHECK(quote.source == w.f.client);
    CHECK(quote.destination == w.f.vip);
    CHECK(quote.destination_port == kPort);
  }
  CHECK(w.s.flow(w.f)->owner.is.spoke == 0);  // the owner itself has said nothing
  CHECK(from(w.f.elsewhere, about(1, kPort)).counted == Counts{{"drop_not_owner", 1}});
  CHECK(from(w.f.elsewhere, about(4, kTargetPort)).counted ==
        Counts{{"drop_vpa_source", 1}});  // that node is not behind this interface
  // about anything else it is a router's everyday word
  const Packet other =
      Ethernet{} / ip(w.f.client, w.f.node(2)) / Tcp{.source = 1, .destination = 2};
  CHECK(from(w.f.elsewhere, too_big(w.f, other.ip_bytes())).counted == Counts{{"passed", 1}});
  const std::uint8_t echo = w.f.version == 4 ? 8 : 128;
  CHECK(from(w.f.elsewhere, {echo, 0, 1, quote_of_client(w.f, 2, kTargetPort, 88)}).counted ==
        Counts{{"passed", 1}});
}

TEST_CASE("switch: ICMP errors that cannot go on") {
  SWITCH_WORLD(w);
  const Counts slow{{"slow_path", 1}}, no_route{{"drop_no_route", 1}};
  const auto with_ttl = [](Packet packet) {
    std::visit([](auto& header) { header.ttl = 1; }, packet.network);
    return packet;
  };
  const Packet in = from_router(w, too_big(w.f, quote_of_service(w.f, 80)));
  Packet out = from_vpa(w, 2, too_big(w.f, quote_of_client(w.f, 2, kTargetPort, 88)));
  w.s.set_flow(w.f, Rig::owned(2, 1, 77, false));
  CHECK(w.s.from_client(with_ttl(in)).counted == slow);
  CHECK(w.s.from_node(with_ttl(out)).counted == slow);
  std::visit([&](auto& header) { header.destination = w.f.node(6); }, out.network);
  CHECK(w.s.from_node(out).counted == no_route);
  CHECK(w.s.flow(w.f)->owner.is.spoke == 0);
  w.s.set_flow(w.f, Rig::owned(6, 1, 77, false));
  CHECK(w.s.from_client(in).counted == no_route);
}
