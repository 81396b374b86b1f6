// SPDX-License-Identifier: MIT
#include "conn_world.hpp"

#include <arpa/inet.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <linux/sockios.h>
#include <linux/tcp.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <cstring>
#include <fstream>
#include <iostream>
#include <stdexcept>
#include <thread>

#include <tcpmig/resume.hpp>

#include "conn/cgroup.hpp"
#include "sys/check.hpp"
#include "sys/netlink.hpp"

namespace conn_test {

using namespace std::chrono_literals;
using tcpmig::sys::Address;
using tcpmig::sys::check;
using tcpmig::sys::Endpoint;
using tcpmig::sys::Netlink;
using tcpmig::sys::Prefix;
using tcpmig::sys::Route;
using tcpmig::sys::UniqueFd;

namespace {

constexpr auto kDeadline = 20s;
constexpr std::uint16_t kServicePort = 80;
constexpr std::uint16_t kMarkerPort = 4242;

Prefix prefix(const std::string& text) { return Prefix::parse(text).value(); }
Address address(const std::string& text) { return Address::parse(text).value(); }

Endpoint client_end(Family family) {
  return {address(family == Family::kIpv6 ? "2001:db8:c::1" : "198.51.100.1"), 0};
}

void set_sysctl(const Namespace& where, const std::string& name, const std::string& value) {
  const auto in = where.enter();
  std::ofstream file("/proc/sys/" + name);
  file << value << std::flush;
  if (!file) throw std::runtime_error("cannot write " + name);
}

/// Links the client with a server: `number` 1 or 2 names the link's network.
void link_up(const Namespace& client, const Namespace& server, const std::string& name,
             const std::string& number) {
  {
    const auto in = client.enter();
    Netlink netlink;
    netlink.create_veth(name, "eth0", server.fd());
    netlink.set_link(name, true);
    const int index = netlink.find_link(name)->index;
    netlink.add_address(index, prefix("10.91." + number + ".1/24"));
    netlink.add_address(index, prefix("fd91:" + number + "::1/64"));
  }
  const auto in = server.enter();
  Netlink netlink;
  netlink.set_link("eth0", true);
  const int index = netlink.find_link("eth0")->index;
  const int loopback = netlink.find_link("lo")->index;
  netlink.add_address(index, prefix("10.91." + number + ".2/24"));
  netlink.add_address(index, prefix("fd91:" + number + "::2/64"));
  netlink.add_address(loopback, prefix("192.0.2.10/32"));
  netlink.add_address(loopback, prefix("2001:db8::10/128"));
  netlink.add_route(
      {.destination = prefix("198.51.100.1/32"), .gateway = address("10.91." + number + ".1")});
  netlink.add_route(
      {.destination = prefix("2001:db8:c::1/128"), .gateway = address("fd91:" + number + "::1")});
}

/// That to B is the narrower one: there or not, there is no moment without a route.
std::array<Route, 2> routes_to_a() {
  return {Route{.destination = prefix("192.0.2.10/31"), .gateway = address("10.91.1.2")},
          Route{.destination = prefix("2001:db8::10/127"), .gateway = address("fd91:1::2")}};
}
std::array<Route, 2> routes_to_b() {
  return {Route{.destination = prefix("192.0.2.10/32"), .gateway = address("10.91.2.2")},
          Route{.destination = prefix("2001:db8::10/128"), .gateway = address("fd91:2::2")}};
}

void set_timeouts(int fd) {
  const timeval timeout{.tv_sec = std::chrono::seconds(kDeadline).count(), .tv_usec = 0};
  check("setsockopt SO_RCVTIMEO",
        ::setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &timeout, sizeof(timeout)));
  check("setsockopt SO_SNDTIMEO",
        ::setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &timeout, sizeof(timeout)));
}

}  // namespace

bool cannot_run_here() {
  if (::geteuid() == 0) return false;
  std::cout << "SKIPPED: needs root (network namespaces)" << std::endl;
  return true;
}

std::string cgroup_name() { return "tmt-conn-" + std::to_string(::getpid()); }

bool has_cgroup2() {
  std::ifstream mounts("/proc/mounts");
  const std::string text{std::istreambuf_iterator<char>(mounts), {}};
  if (tcpmig::conn::find_cgroup2(text)) return true;
  std::cout << "SKIPPED: no cgroup v2 here" << std::endl;
  return false;
}

tcpmig::FreezeKit::Options kit_options(bool by_program) {
  return {.use_dump_program = by_program, .cgroup_name = cgroup_name(), .keep_window_small = false};
}

Namespace::Namespace(const std::string& suffix)
    : name_("tmt-conn-" + std::to_string(::getpid()) + "-" + suffix) {
  tcpmig::sys::remove_netns(name_);
  tcpmig::sys::create_netns(name_);
  fd_ = tcpmig::sys::open_netns(name_);
}

Namespace::~Namespace() { tcpmig::sys::remove_netns(name_); }

World::World() : client("client"), a("a"), b("b") {
  // link-local addresses at once, not after a second
  for (const Namespace* where : {&client, &a, &b})
    set_sysctl(*where, "net/ipv6/conf/default/accept_dad", "0");
  {
    const auto in = client.enter();
    Netlink netlink;
    const int loopback = netlink.find_link("lo")->index;
    netlink.add_address(loopback, prefix("198.51.100.1/32"));
    netlink.add_address(loopback, prefix("2001:db8:c::1/128"));
  }
  link_up(client, a, "ca", "1");
  link_up(client, b, "cb", "2");
  const auto in = client.enter();
  Netlink netlink;
  for (const Route& route : routes_to_a()) netlink.add_route(route);
}

void World::set_offer(const Offer& offer) const {
  set_sysctl(client, "net/ipv4/tcp_timestamps", offer.timestamps ? "1" : "0");
  set_sysctl(client, "net/ipv4/tcp_sack", offer.sack ? "1" : "0");
  set_sysctl(client, "net/ipv4/tcp_window_scaling", offer.window_scale ? "1" : "0");
}

void World::route_to(const Namespace& server) {
  const auto in = client.enter();
  Netlink netlink;
  for (const Route& route : routes_to_b())
    if (&server == &b)
      netlink.add_route(route);
    else
      netlink.remove_route(route);
}

Endpoint service(Family family) {
  return {address(family == Family::kIpv6 ? "2001:db8::10" : "192.0.2.10"), kServicePort};
}

UniqueFd listen_at(const Namespace& server, Family family, int protocol) {
  const auto in = server.enter();
  const bool ipv4 = family == Family::kIpv4;
  UniqueFd fd(::socket(ipv4 ? AF_INET : AF_INET6, SOCK_STREAM | SOCK_CLOEXEC, protocol));
  if (!fd && errno == EPROTONOSUPPORT) return fd;
  check("socket", fd.get());
  const int on = 1;
  check("SO_REUSEADDR", ::setsockopt(fd.get(), SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on)));
  sockaddr_storage any{};
  socklen_t length = sizeof(sockaddr_in6);
  if (family == Family::kMapped) {  // [::]:80, for both families
    reinterpret_cast<sockaddr_in6&>(any).sin6_family = AF_INET6;
    reinterpret_cast<sockaddr_in6&>(any).sin6_port = htons(kServicePort);
  } else {
    std::tie(any, length) = service(family).to_sockaddr();
  }
  check("bind", ::bind(fd.get(), reinterpret_cast<const sockaddr*>(&any), length));
  check("listen", ::listen(fd.get(), 16));
  set_timeouts(fd.get());
  return fd;
}

Pair connect_pair(World& world, int listener, Family family, const ClientSocket& how) {
  Pair pair;
  {
    const auto in = world.client.enter();
    pair.client.reset(check("socket", ::socket(family == Family::kIpv6 ? AF_INET6 : AF_INET,
                                               SOCK_STREAM | SOCK_CLOEXEC, how.protocol)));
  }
  const int fd = pair.client.get();
  if (how.mss != 0)
    check("TCP_MAXSEG", ::setsockopt(fd, IPPROTO_TCP, TCP_MAXSEG, &how.mss, sizeof(how.mss)));
  set_timeouts(fd);
  const auto [from, from_length] = client_end(family).to_sockaddr();
  check("bind", ::bind(fd, reinterpret_cast<const sockaddr*>(&from), from_length));
  const auto [to, to_length] = service(family).to_sockaddr();
  check("connect", ::connect(fd, reinterpret_cast<const sockaddr*>(&to), to_length));
  pair.server.reset(check("accept", ::accept4(listener, nullptr, nullptr, SOCK_CLOEXEC)));
  set_timeouts(pair.server.get());
  return pair;
}

Pair connect_pair(World& world, const Namespace& server, Family family) {
  const UniqueFd listener = listen_at(server, family);
  return connect_pair(world, listener.get(), family);
}

namespace {

/// One end of an idle connection, which sends `own` next and receives `theirs`.
UniqueFd renumbered(const tcpmig::Frozen& frozen, const Namespace& where, std::uint32_t own,
                    std::uint32_t theirs) {
  tcpmig::Snapshot snapshot = frozen.snapshot();
  if (!snapshot.received.empty() || !snapshot.sent.empty() || !snapshot.unsent.empty())
    throw std::logic_error("the connection is not idle");
  const std::uint32_t further = theirs - snapshot.rcv_nxt.value;
  snapshot.rcv_nxt = {theirs};
  snapshot.snd_una = snapshot.snd_nxt = {own};
  snapshot.window->rcv_wup += further;
  snapshot.window->snd_wl1 += further;
  const auto in = where.enter();
  return tcpmig::repair_resume(snapshot);
}

}  // namespace

Pair with_sequence(World& world, const Namespace& server, Pair pair, std::uint32_t client_next,
                   std::uint32_t server_next) {
  const tcpmig::FreezeKit kit(kit_options(false));
  // both are locked before either may say anything with its new numbers
  auto client_end = tcpmig::freeze(std::move(pair.client), {}, kit, tcpmig::Scope::kWhole);
  auto server_end = tcpmig::freeze(std::move(pair.server), {}, kit, tcpmig::Scope::kWhole);
  client_end.commit();
  server_end.commit();
  return {.client = renumbered(client_end, world.client, client_next, server_next),
          .server = renumbered(server_end, server, server_next, client_next)};
}

Bytes pattern(std::size_t size, unsigned seed) {
  Bytes bytes(size);
  std::uint32_t state = seed;
  for (std::byte& byte : bytes)
    byte = static_cast<std::byte>((state = state * 1664525U + 1013904223U) >> 24);
  return bytes;
}

Bytes bytes_of(std::string_view text) {
  const auto bytes = std::as_bytes(std::span(text));
  return {bytes.begin(), bytes.end()};
}

void send_all(int fd, std::span<const std::byte> bytes) {
  while (!bytes.empty())
    bytes = bytes.subspan(static_cast<std::size_t>(
        check("send", ::send(fd, bytes.data(), bytes.size(), MSG_NOSIGNAL))));
}

Bytes receive_exactly(int fd, std::size_t count) {
  Bytes bytes(count);
  for (std::size_t have = 0; have < count;) {
    const ssize_t got = check("recv", ::recv(fd, bytes.data() + have, count - have, 0));
    if (got == 0)
      throw std::runtime_error("end of stream after " + std::to_string(have) + " bytes");
    have += static_cast<std::size_t>(got);
  }
  return bytes;
}

Bytes carry(int from, int to, std::span<const std::byte> bytes) {
  Bytes came(bytes.size());
  std::size_t sent = 0, have = 0;
  wait_until("carry", [&] {
    const ssize_t put =
        ::send(from, bytes.data() + sent, bytes.size() - sent, MSG_DONTWAIT | MSG_NOSIGNAL);
    if (put < 0 && errno != EAGAIN) check("send", -1);
    if (put > 0) sent += static_cast<std::size_t>(put);
    const ssize_t got = ::recv(to, came.data() + have, came.size() - have, MSG_DONTWAIT);
    if (got < 0 && errno != EAGAIN) check("recv", -1);
    if (got == 0)
      throw std::runtime_error("end of stream after " + std::to_string(have) + " bytes");
    if (got > 0) have += static_cast<std::size_t>(got);
    return have == came.size();
  });
  return came;
}

bool talk(int one, int other, std::size_t size) {
  const Bytes there = pattern(size, 11), back = pattern(size, 12);
  return carry(one, other, there) == there && carry(other, one, back) == back;
}

::tcp_info info_of(int fd) {
  ::tcp_info info{};
  socklen_t length = sizeof(info);
  check("getsockopt TCP_INFO", ::getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &length));
  return info;
}

std::size_t bytes_waiting(int fd) {
  int count = 0;
  check("ioctl SIOCINQ", ::ioctl(fd, SIOCINQ, &count));
  return static_cast<std::size_t>(count);
}

void wait_until(const std::string& what, const std::function<bool()>& condition) {
  const auto end = std::chrono::steady_clock::now() + kDeadline;
  while (!condition()) {
    if (std::chrono::steady_clock::now() > end) throw std::runtime_error("timeout: " + what);
    std::this_thread::yield();
  }
}

bool Race::again() {
  if (!done_ && ++runs_ > 10) throw std::runtime_error("this machine is too busy for this test");
  return !done_;
}

bool Race::in_time() { return done_ = std::chrono::steady_clock::now() - start_ < 150ms; }

tcpmig::sys::Tun tun_in(const Namespace& server) {
  const auto in = server.enter();
  tcpmig::sys::Tun tun("tmt0");
  Netlink().add_address(tun.ifindex(), prefix("192.0.0.8/32"));
  return tun;
}

Sniffer::Sniffer(const Namespace& where) {
  const auto in = where.enter();
  fd_.reset(check("socket AF_PACKET", ::socket(AF_PACKET, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK,
                                               htons(ETH_P_ALL))));
}

namespace {

/// The TCP packet in `packet` (network layer on), or the marker; nothing else matters.
struct Parsed {
  bool tcp = false;
  bool marker = false;
  Sniffer::Packet packet;
};

Parsed parse(std::span<const std::byte> bytes) {
  Parsed parsed;
  iphdr v4{};
  if (bytes.size() < sizeof(ipv6hdr)) return parsed;
  std::memcpy(&v4, bytes.data(), sizeof(v4));
  ipv6hdr v6{};
  std::memcpy(&v6, bytes.data(), sizeof(v6));
  const bool ipv4 = v4.version == 4;
  const std::size_t header = ipv4 ? v4.ihl * 4U : sizeof(v6);
  const std::size_t total = ipv4 ? ntohs(v4.tot_len) : ntohs(v6.payload_len) + sizeof(v6);
  const unsigned protocol = ipv4 ? v4.protocol : v6.nexthdr;
  if (protocol == IPPROTO_UDP) {
    std::uint16_t port = 0;
    std::memcpy(&port, bytes.data() + header + 2, sizeof(port));
    parsed.marker = ntohs(port) == kMarkerPort;
  }
  if (protocol != IPPROTO_TCP || bytes.size() < header + sizeof(tcphdr)) return parsed;
  tcphdr tcp{};
  std::memcpy(&tcp, bytes.data() + header, sizeof(tcp));
  parsed.tcp = true;
  parsed.packet.tcp_flags = std::to_integer<std::uint8_t>(bytes[header + 13]);
  parsed.packet.tcp_data = total - header - tcp.doff * 4U;
  return parsed;
}

std::vector<Parsed> take_all(int fd) {
  std::vector<Parsed> all;
  std::vector<std::byte> buffer(70'000);
  for (;;) {
    sockaddr_ll from{};
    socklen_t length = sizeof(from);
    const ssize_t got = ::recvfrom(fd, buffer.data(), buffer.size(), 0,
                                   reinterpret_cast<sockaddr*>(&from), &length);
    if (got < 0) return all;
    Parsed parsed = parse(std::span(buffer).first(static_cast<std::size_t>(got)));
    parsed.packet.outgoing = from.sll_pkttype == PACKET_OUTGOING;
    all.push_back(parsed);
  }
}

}  // namespace

std::vector<Sniffer::Packet> Sniffer::take() {
  std::vector<Packet> packets;
  for (const Parsed& parsed : take_all(fd_.get()))
    if (parsed.tcp) packets.push_back(parsed.packet);
  return packets;
}

std::vector<Sniffer::Packet> Sniffer::take_after_marker(const World& world) {
  for (const auto& [server, link] :
       {std::pair(&world.a, "10.91.1.1"), std::pair(&world.b, "10.91.2.1")}) {
    const auto in = server->enter();
    const UniqueFd udp(check("socket", ::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0)));
    const auto [to, length] = Endpoint{address(link), kMarkerPort}.to_sockaddr();
    const Bytes marker(sizeof(ipv6hdr));  // long enough for parse()
    check("sendto", ::sendto(udp.get(), marker.data(), marker.size(), 0,
                             reinterpret_cast<const sockaddr*>(&to), length));
  }
  std::vector<Packet> packets;
  int markers = 0;
  wait_until("the markers", [&] {
    for (const Parsed& parsed : take_all(fd_.get())) {
      if (parsed.tcp) packets.push_back(parsed.packet);
      if (parsed.marker && !parsed.packet.outgoing) ++markers;
    }
    return markers >= 2;
  });
  return packets;
}

}  // namespace conn_test
