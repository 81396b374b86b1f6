// SPDX-License-Identifier: MIT
// The TUN device and sock_diag.
#include <linux/bpf.h>
#include <netinet/ip.h>
#include <netinet/ip6.h>
#include <netinet/udp.h>
#include <poll.h>
#include <sys/socket.h>

#include <cstring>
#include <fstream>
#include <numeric>

#include "catch.hpp"
#include "sys/check.hpp"
#include "sys/ledger.hpp"
#include "sys/sock_diag.hpp"
#include "sys/tun.hpp"
#include "sys_support.hpp"

namespace sys = tcpmig::sys;
using namespace sys_test;
using namespace std::chrono_literals;
using sys::check;

namespace {

using Bytes = std::vector<std::byte>;

void append(Bytes& bytes, const void* data, std::size_t size) {
  const auto* begin = static_cast<const std::byte*>(data);
  bytes.insert(bytes.end(), begin, begin + size);
}

/// RFC 1071, over an even number of bytes.
std::uint16_t checksum(const Bytes& bytes) {
  std::uint32_t sum = 0;
  for (std::size_t i = 0; i + 1 < bytes.size(); i += 2)
    sum += std::to_integer<std::uint32_t>(bytes[i]) << 8 |
           std::to_integer<std::uint32_t>(bytes[i + 1]);
  while (sum >> 16) sum = (sum & 0xffff) + (sum >> 16);
  return htons(static_cast<std::uint16_t>(~sum));
}

Bytes udp4(const Endpoint& from, const Endpoint& to, const Bytes& payload) {
  iphdr ip{};
  ip.version = 4;
  ip.ihl = 5;
  ip.ttl = 64;
  ip.protocol = IPPROTO_UDP;
  ip.saddr = from.address.v4().s_addr;
  ip.daddr = to.address.v4().s_addr;
  ip.tot_len = htons(static_cast<std::uint16_t>(sizeof ip + sizeof(udphdr) + payload.size()));
  Bytes header;
  append(header, &ip, sizeof ip);
  ip.check = checksum(header);
  udphdr udp{};
  udp.source = htons(from.port);
  udp.dest = htons(to.port);
  udp.len = htons(static_cast<std::uint16_t>(sizeof udp + payload.size()));
  Bytes packet;
  append(packet, &ip, sizeof ip);
  append(packet, &udp, sizeof udp);
  append(packet, payload.data(), payload.size());
  return packet;
}

/// The payload must have an even length.
Bytes udp6(const Endpoint& from, const Endpoint& to, const Bytes& payload) {
  const auto length = static_cast<std::uint16_t>(sizeof(udphdr) + payload.size());
  const in6_addr source = from.address.v6();
  const in6_addr destination = to.address.v6();
  ip6_hdr ip{};
  ip.ip6_flow = htonl(6U << 28);
  ip.ip6_plen = htons(length);
  ip.ip6_nxt = IPPROTO_UDP;
  ip.ip6_hlim = 64;
  ip.ip6_src = source;
  ip.ip6_dst = destination;
  udphdr udp{};
  udp.source = htons(from.port);
  udp.dest = htons(to.port);
  udp.len = htons(length);
  const std::uint32_t pseudo[2] = {htonl(length), htonl(IPPROTO_UDP)};
  Bytes summed;
  append(summed, &source, sizeof source);
  append(summed, &destination, sizeof destination);
  append(summed, pseudo, sizeof pseudo);
  append(summed, &udp, sizeof udp);
  append(summed, payload.data(), payload.size());
  udp.check = checksum(summed);
  Bytes packet;
  append(packet, &ip, sizeof ip);
  append(packet, &udp, sizeof udp);
  append(packet, payload.data(), payload.size());
  return packet;
}

/// What a socket receives: sender and payload.
std::pair<Endpoint, std::size_t> receive(const UniqueFd& socket) {
  REQUIRE(readable_within(socket.get(), 2s));
  sockaddr_storage storage{};
  socklen_t length = sizeof storage;
  std::vector<char> buffer(70000);
  const auto size = check("recvfrom", ::recvfrom(socket.get(), buffer.data(), buffer.size(), 0,
                                                 reinterpret_cast<sockaddr*>(&storage), &length));
  return {Endpoint::from_sockaddr(storage), static_cast<std::size_t>(size)};
}

}  // namespace

TEST_CASE("tun: up, loose, without an address that means anything, gone with its descriptor") {
  if (cannot_run_here()) return;
  const Namespace space("tun");
  const auto inside = space.enter();
  sys::Netlink netlink;
  {
    const sys::Tun tun("tmt0");
    const auto link = netlink.find_link("tmt0");
    REQUIRE(link);
    CHECK(link->index == tun.ifindex());
    CHECK(link->up);
    CHECK(link->mtu == 65535);
    CHECK(sys::read_sysctl("net/ipv4/conf/tmt0/rp_filter") == "2");
    CHECK(sys::read_sysctl("net/ipv6/conf/tmt0/disable_ipv6") == "0");
    for (const sys::LinkAddress& there : netlink.addresses())
      if (there.ifindex == tun.ifindex()) CHECK(there.prefix == prefix("192.0.0.8/32"));
    CHECK_THROWS_WITH(sys::Tun("tmt0"), Catch::Matchers::Contains("tmt0"));
    char byte = 0;
    CHECK(::read(tun.fd(), &byte, 1) == -1);
    CHECK(errno == EAGAIN);
  }
  CHECK_FALSE(netlink.find_link("tmt0"));
  CHECK_THROWS(sys::Tun("a-name-that-is-too-long"));
}

TEST_CASE("tun: what is injected is received, IPv4 and IPv6, to any address of a block") {
  if (cannot_run_here()) return;
  const Pair pair;
  const auto inside = pair.left.enter();
  // strict, loose, off: whatever the host says, the TUN takes in what comes from elsewhere
  std::ofstream("/proc/sys/net/ipv4/conf/all/rp_filter") << GENERATE("0", "1", "2");
  std::ofstream("/proc/sys/net/ipv6/conf/default/disable_ipv6") << "1";
  sys::Netlink netlink;
  netlink.add_route({.destination = prefix("100.64.64.0/18"), .gateway = {}, .local = true});
  netlink.add_route({.destination = prefix("fd7c::1:0/112"), .gateway = {}, .local = true});
  netlink.add_route({.destination = prefix("0.0.0.0/0"), .gateway = address("10.9.0.2")});
  netlink.add_route({.destination = prefix("::/0"), .gateway = address("fd09::2")});
  sys::Tun tun("tmt0");
  const UniqueFd v4 = bound_socket(SOCK_DGRAM, {address("0.0.0.0"), 7000});
  const UniqueFd v6 = bound_socket(SOCK_DGRAM, {address("::"), 7001});
  for (const std::size_t size : {std::size_t{2}, std::size_t{1472}, std::size_t{65400}}) {
    INFO("payload of " << size);
    const Endpoint client4{address("198.51.100.1"), 4000};
    REQUIRE(tun.inject(udp4(client4, {address("100.64.100.9"), 7000}, Bytes(size))));
    CHECK(receive(v4) == std::pair{client4, size});
    const Endpoint client6{address("2001:db8:c::1"), 4000};
    REQUIRE(tun.inject(udp6(client6, {address("fd7c::1:99"), 7001}, Bytes(size))));
    CHECK(receive(v6) == std::pair{client6, size});
  }
  CHECK_THROWS_AS(tun.inject({}), std::system_error);
}

TEST_CASE("tun: what the kernel routes to it is read there") {
  if (cannot_run_here()) return;
  const Namespace space("out");
  const auto inside = space.enter();
  sys::Netlink netlink;
  const sys::Tun tun("tmt0");
  netlink.add_address(1, prefix("10.7.7.7/32"));
  netlink.add_route({.destination = prefix("192.0.2.0/24"), .gateway = {}, .oif = tun.ifindex()});
  const UniqueFd sender = bound_socket(SOCK_DGRAM, {address("10.7.7.7"), 5000});
  const auto [storage, length] = Endpoint{address("192.0.2.1"), 6000}.to_sockaddr();
  const Bytes payload(60000);
  check("sendto", ::sendto(sender.get(), payload.data(), payload.size(), 0,
                           reinterpret_cast<const sockaddr*>(&storage), length));
  REQUIRE(readable_within(tun.fd(), 2s));
  Bytes packet(70000);
  CHECK(check("read", ::read(tun.fd(), packet.data(), packet.size())) == 60000 + 28);
  CHECK(packet[0] == std::byte{0x45});
}

namespace {

/// A connection over lo in a namespace of its own.
struct Connection {
  explicit Connection(const Endpoint& listen, const Endpoint& connect)
      : listener(bound_socket(SOCK_STREAM, listen)),
        client(connected_socket(connect)),
        server(accepted_socket(listener)),
        client_name(name_of(client)),
        server_name(name_of(server)) {}
  UniqueFd listener;
  UniqueFd client;
  UniqueFd server;
  Endpoint client_name;
  Endpoint server_name;
};

/// Listening and connecting address: IPv4, IPv6, and IPv4 to an IPv6 listener (whose child is
/// v4-mapped).
std::pair<const char*, const char*> families() {
  using Two = std::pair<const char*, const char*>;
  return GENERATE(Two{"127.0.0.1", "127.0.0.1"}, Two{"::1", "::1"}, Two{"::", "127.0.0.1"});
}

bool eof_within(const UniqueFd& socket) {
  if (!readable_within(socket.get(), 2s)) return false;
  char byte = 0;
  return ::recv(socket.get(), &byte, 1, 0) <= 0;
}

}  // namespace

TEST_CASE("sock_diag: an exact connection is found, with its queues and tcp_info") {
  if (cannot_run_here()) return;
  const Namespace space("diag");
  const auto inside = space.enter();
  const auto [listen, connect] = families();
  const Connection c({address(listen), 8000}, {address(connect), 8000});
  sys::SockDiag diag;
  check("send", ::send(c.client.get(), "hello", 5, 0));
  REQUIRE(readable_within(c.server.get(), 2s));
  const auto found = diag.find(c.server_name, c.client_name);
  REQUIRE(found);
  CHECK(found->local == c.server_name);
  CHECK(found->peer == c.client_name);
  CHECK(found->state == BPF_TCP_ESTABLISHED);
  CHECK(found->recv_queue == 5);
  CHECK(found->inode != 0);
  CHECK(found->cookie != 0);
  CHECK_FALSE(found->tcp);
  const auto detailed = diag.find(c.client_name, c.server_name, true);
  REQUIRE(detailed);
  REQUIRE(detailed->tcp);
  CHECK(detailed->tcp->tcpi_state == BPF_TCP_ESTABLISHED);
  CHECK(detailed->tcp->tcpi_bytes_acked == 6);  // with the SYN
  CHECK(detailed->cookie != found->cookie);
}

TEST_CASE("sock_diag: neither the listener nor another connection is taken for the one asked for") {
  if (cannot_run_here()) return;
  const Namespace space("diag");
  const auto inside = space.enter();
  const auto [listen, connect] = families();
  const Connection c({address(listen), 8000}, {address(connect), 8000});
  sys::SockDiag diag;
  Endpoint nobody = c.client_name;
  nobody.port = static_cast<std::uint16_t>(nobody.port ^ 1);
  CHECK_FALSE(diag.find(c.server_name, nobody));
  CHECK_FALSE(diag.destroy(c.server_name, nobody));
  CHECK_NOTHROW(connected_socket({address(connect), 8000}));  // the listener lives
  CHECK_FALSE(diag.find(
      c.server_name, {address(c.client_name.address.is_ipv4() ? "2001:db8::1" : "192.0.2.1"), 1}));
}

TEST_CASE("sock_diag: the listener that would take a connection is found, with its queue") {
  if (cannot_run_here()) return;
  const Namespace space("diag");
  const auto inside = space.enter();
  const auto [listen, connect] = families();
  const Connection c({address(listen), 8000}, {address(connect), 8000});
  sys::SockDiag diag;
  Endpoint nobody = c.client_name;
  nobody.port = static_cast<std::uint16_t>(nobody.port ^ 1);
  const auto idle = diag.find_listener(c.server_name, nobody);
  REQUIRE(idle);
  CHECK(idle->state == BPF_TCP_LISTEN);
  CHECK(idle->local.port == 8000);
  CHECK(idle->recv_queue == 0);
  CHECK(idle->send_queue > 0);
  const UniqueFd waits = connected_socket({address(connect), 8000});
  const auto busy = diag.find_listener(c.server_name, nobody);
  REQUIRE(busy);
  CHECK(busy->recv_queue == 1);
  CHECK_FALSE(diag.find_listener(c.server_name, c.client_name));  // there is a connection
  CHECK_FALSE(diag.find_listener({c.server_name.address, 8001}, nobody));
}

TEST_CASE("sock_diag: a connection is destroyed, and only this one") {
  if (cannot_run_here()) return;
  const Namespace space("diag");
  const auto inside = space.enter();
  const auto [listen, connect] = families();
  const Connection c({address(listen), 8000}, {address(connect), 8000});
  const UniqueFd other_client = connected_socket({address(connect), 8000});
  const UniqueFd other = accepted_socket(c.listener);
  sys::SockDiag diag;
  CHECK(diag.destroy(c.server_name, c.client_name));
  CHECK_FALSE(diag.find(c.server_name, c.client_name));
  CHECK_FALSE(diag.destroy(c.server_name, c.client_name));
  CHECK(eof_within(c.server));
  CHECK(diag.find(c.server_name, name_of(other_client)));
}

TEST_CASE("sock_diag: TIME_WAIT is found and destroyed") {
  if (cannot_run_here()) return;
  const Namespace space("diag");
  const auto inside = space.enter();
  const auto [listen, connect] = families();
  Connection c({address(listen), 8000}, {address(connect), 8000});
  sys::SockDiag diag;
  c.server.reset();
  CHECK(eof_within(c.client));
  c.client.reset();
  REQUIRE(holds_within(2s, [&] {
    const auto found = diag.find(c.server_name, c.client_name);
    return found && found->state == BPF_TCP_TIME_WAIT;
  }));
  CHECK(diag.destroy(c.server_name, c.client_name));
  CHECK_FALSE(diag.find(c.server_name, c.client_name));
}

TEST_CASE(
    "sock_diag: for_each sees both families and the states asked for, and may destroy meanwhile") {
  if (cannot_run_here()) return;
  const Namespace space("diag");
  const auto inside = space.enter();
  const Connection v4({address("127.0.0.1"), 8000}, {address("127.0.0.1"), 8000});
  const Connection v6({address("::1"), 8001}, {address("::1"), 8001});
  const Connection mapped({address("::"), 8002}, {address("127.0.0.1"), 8002});
  std::vector<UniqueFd> more;
  for (int i = 0; i < 300; ++i) {
    more.push_back(connected_socket({address("127.0.0.1"), 8000}));
    more.push_back(accepted_socket(v4.listener));
  }
  sys::SockDiag diag;
  std::vector<Endpoint> listeners;
  diag.for_each(1U << BPF_TCP_LISTEN, [&](const sys::SocketInfo& info) {
    CHECK(info.state == BPF_TCP_LISTEN);
    CHECK(info.send_queue == 16);
    listeners.push_back(info.local);
  });
  std::sort(listeners.begin(), listeners.end());
  CHECK(listeners == std::vector<Endpoint>{{address("::"), 8002},
                                           {address("::1"), 8001},
                                           {address("127.0.0.1"), 8000}});
  std::size_t servers = 0;
  diag.for_each(1U << BPF_TCP_ESTABLISHED, [&](const sys::SocketInfo& info) {
    if (info.local.port < 8000 || info.local.port > 8002) return;
    ++servers;
    CHECK(diag.find(info.local, info.peer));
    diag.destroy(info.local, info.peer);
  });
  CHECK(servers == 303);
}
