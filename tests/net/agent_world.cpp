// SPDX-License-Identifier: MIT
#include "agent_world.hpp"

#include <arpa/inet.h>
#include <linux/if_packet.h>
#include <net/ethernet.h>
#include <netinet/ip.h>
#include <netinet/ip6.h>
#include <poll.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>

#include <algorithm>
#include <array>
#include <iostream>

#include "agent/agent.hpp"
#include "conn/segment.hpp"
#include "control/status_socket.hpp"
#include "shared/switch_maps.h"
#include "sys/bpf.hpp"
#include "sys/check.hpp"

namespace agent_test {

using namespace tcpmig;
using sys::check;
using sys_test::holds_within;
using sys_test::readable_within;

namespace {

constexpr std::uint16_t kControlPort = 7420;
const Endpoint kServer4{sys_test::address("10.77.0.2"), kControlPort};
const Endpoint kServer6{sys_test::address("fd77::2"), kControlPort};

void set_up_link(const std::string& name, int host) {
  sys::Netlink netlink;
  netlink.set_link("lo", true);
  netlink.set_link(name, true);
  const int index = netlink.find_link(name).value().index;
  netlink.add_address(index, sys_test::prefix("10.77.0." + std::to_string(host) + "/24"));
  netlink.add_address(index, sys_test::prefix("fd77::" + std::to_string(host) + "/64"));
}

void route_all_by(const std::string& gateway4, const std::string& gateway6) {
  sys::Netlink netlink;
  netlink.add_route({sys_test::prefix("0.0.0.0/0"), sys_test::address(gateway4)});
  netlink.add_route({sys_test::prefix("::/0"), sys_test::address(gateway6)});
}

UniqueFd control_socket(const char* address, std::uint16_t port) {
  return sys_test::bound_socket(SOCK_DGRAM, {sys_test::address(address), port});
}

void send_datagram(const UniqueFd& socket, const Endpoint& to, std::span<const std::byte> bytes) {
  const auto [storage, length] = to.to_sockaddr();
  check("sendto", ::sendto(socket.get(), bytes.data(), bytes.size(), 0,
                           reinterpret_cast<const sockaddr*>(&storage), length));
}

std::optional<Bytes> receive_from(const std::array<int, 2>& sockets,
                                  std::chrono::milliseconds within) {
  std::array<pollfd, 2> entries{{{sockets[0], POLLIN, 0}, {sockets[1], POLLIN, 0}}};
  if (check("poll", ::poll(entries.data(), 2, static_cast<int>(within.count()))) == 0) return {};
  Bytes buffer(2048);
  const int fd = (entries[0].revents & POLLIN) != 0 ? sockets[0] : sockets[1];
  buffer.resize(
      static_cast<std::size_t>(check("recv", ::recv(fd, buffer.data(), buffer.size(), 0))));
  return buffer;
}

template <typename Header>
Header header_at(const Bytes& bytes, std::size_t offset) {
  Header header{};
  if (bytes.size() >= offset + sizeof header)
    std::memcpy(&header, bytes.data() + offset, sizeof header);
  return header;
}

struct TcpHeader {
  std::uint16_t source, destination;
  std::uint32_t seq, ack;
  std::uint8_t offset, flags;
  std::uint16_t window, checksum, urgent;
};
static_assert(sizeof(TcpHeader) == 20);

std::optional<Sent> parse_sent(const Bytes& packet) {
  Sent sent;
  std::size_t l4 = 40, end = packet.size();
  if (const auto ip = header_at<iphdr>(packet, 0); ip.version == 4) {
    if (ip.protocol != IPPROTO_TCP) return {};
    l4 = ip.ihl * 4U;
    end = ntohs(ip.tot_len);
    sent.to.address = sys::Address::from_v4({.s_addr = ip.daddr});
  } else {
    const auto ip6 = header_at<ip6_hdr>(packet, 0);
    if (ip6.ip6_nxt != IPPROTO_TCP) return {};
    sent.to.address = sys::Address::from_v6(ip6.ip6_dst);
  }
  const auto tcp = header_at<TcpHeader>(packet, l4);
  sent.to.port = ntohs(tcp.destination);
  sent.seq = ntohl(tcp.seq);
  sent.ack = ntohl(tcp.ack);
  sent.flags = tcp.flags & 0x3fU;
  const std::size_t data = l4 + (tcp.offset >> 4U) * 4U;
  if (data <= end && end <= packet.size())
    sent.data.assign(packet.begin() + static_cast<std::ptrdiff_t>(data),
                     packet.begin() + static_cast<std::ptrdiff_t>(end));
  return sent;
}

}  // namespace

bool cannot_run_here() {
  if (cannot_hand_over_here()) return true;
  const std::string missing = tcpmig::sys::kfunc_missing("bpf_sk_assign_tcp_reqsk");
  if (!missing.empty()) std::cout << "SKIPPED: " << missing << std::endl;
  return !missing.empty();
}

bool cannot_hand_over_here() { return sys_test::cannot_run_here(); }

bool is_resumed(const std::optional<Answer>& answer) {
  return answer && answer->header.type == abi::WIRE_RESUMED;
}
bool is_refused(const std::optional<Answer>& answer, abi::wire_reason reason) {
  return answer && answer->header.type == abi::WIRE_REFUSED && answer->header.reason == reason;
}

Bytes bytes_of(std::string_view text) {
  const auto all = std::as_bytes(std::span(text));
  return {all.begin(), all.end()};
}
std::string text_of(const Bytes& bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}
Bytes pattern(std::size_t length) {
  Bytes bytes(length);
  std::uint32_t state = 12345;
  for (std::byte& byte : bytes) {
    state = state * 1664525 + 1013904223;
    byte = static_cast<std::byte>(state >> 24U);
  }
  return bytes;
}

std::string World::text(const std::string& extra, bool handoff) const {
  const std::string socket = (directory_ / "handoff").string();
  const std::string server = handoff ? ", { node = \"s1\", port = 81, handoff = \"" + socket +
                                           "\" }, { node = \"s2\", handoff = \"" + socket + "\" }"
                                     : "";
  const std::string other =
      handoff ? "[[node]]\nname = \"s2\"\nid = 3\nrole = \"server\"\naddress4 = \"10.77.0.3\"\n"
                "address6 = \"fd77::3\"\ninterface = \"eth0\"\n"
              : "";
  return extra + "\n[cluster]\nname = \"" + name_ + "\"\nsecret_file = \"" +
         (directory_ / "secret").string() +
         "\"\n[[switch]]\nname = \"sw\"\nclients = [\"eth9\"]\nnodes = [\"o0\"]\n"
         "[[node]]\nname = \"d1\"\nid = 1\nrole = \"dispatcher\"\naddress4 = \"10.77.0.1\"\n"
         "address6 = \"fd77::1\"\ninterface = \"o0\"\n"
         "[[node]]\nname = \"s1\"\nid = 2\nrole = \"server\"\naddress4 = \"10.77.0.2\"\n"
         "address6 = \"fd77::2\"\ninterface = \"eth0\"\n" +
         other +
         "[[service]]\nname = \"web\"\nid = 5\nvip4 = \"203.0.113.10\"\nvip6 = "
         "\"2001:db8:113::10\"\n"
         "port = 80\nroute = [{ pool = \"all\" }]\n"
         "[[pool]]\nname = \"all\"\nservers = [{ node = \"s1\" }" +
         server + "]\n";
}

World::World(const std::string& extra, bool handoff)
    : name_("tmt-agent-" + std::to_string(::getpid())),
      outside_(name_ + "-o"),
      server_(name_ + "-s"),
      directory_(std::filesystem::temp_directory_path() / name_) {
  sys::route_libbpf_log();
  std::filesystem::create_directories(directory_);
  std::filesystem::remove(directory_ / "secret");
  control::Secret::generate(directory_ / "secret");
  auto parsed = config::parse(text(extra, handoff), "test.toml");
  if (!parsed) throw std::logic_error(parsed.error().at(0).str());
  config = *parsed;
  sys::create_netns(outside_);
  sys::create_netns(server_);
  const UniqueFd there = sys::open_netns(server_);
  {
    const auto inside = outside();
    sys::Netlink netlink;
    netlink.create_veth("o0", "eth0", there.get());
    set_up_link("o0", 1);
    interface_ = netlink.find_link("o0").value().index;
    packets_ = UniqueFd(
        check("socket AF_PACKET",
              ::socket(AF_PACKET, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, htons(ETH_P_ALL))));
    const int room = 32 << 20;
    check("SO_RCVBUFFORCE",
          ::setsockopt(packets_.get(), SOL_SOCKET, SO_RCVBUFFORCE, &room, sizeof room));
    dispatcher4_ = control_socket("10.77.0.1", 0);
    dispatcher6_ = control_socket("fd77::1", 0);
    control4_ = control_socket("10.77.0.1", kControlPort);
    control6_ = control_socket("fd77::1", kControlPort);
  }
  {
    const auto inside = server();
    set_up_link("eth0", 2);
    route_all_by("10.77.0.1", "fd77::1");
    const std::string mac = sys::Netlink().find_link("eth0").value().mac;
    std::copy_n(mac.begin(), 6, server_mac_.begin());
  }
  const auto secret = control::Secret::load(directory_ / "secret");
  sealer_.emplace(secret, std::uint16_t{1}, std::uint8_t{0});
  switch_sealer_.emplace(secret, std::uint16_t{0}, std::uint8_t{0});
  opener_.emplace(secret, config, std::uint16_t{1});
}

World::~World() {
  try {
    if (agent_ > 0) stop(SIGKILL);
    const auto inside = server();
    agent::down(config, self());
  } catch (const std::exception& error) {
    std::cerr << "while cleaning up: " << error.what() << std::endl;
  }
  for (UniqueFd* fd : {&packets_, &dispatcher4_, &dispatcher6_, &control4_, &control6_})
    fd->reset();
  sys::remove_netns(outside_);
  sys::remove_netns(server_);
  std::error_code ignored;
  for (const std::string place : {"/sys/fs/bpf/tcpmig/", "/run/tcpmig/"})
    std::filesystem::remove_all(place + name_, ignored);
  std::filesystem::remove_all(directory_, ignored);
}

void World::start() {
  agent_ = check("fork", ::fork());
  if (agent_ == 0) {
    ::prctl(PR_SET_PDEATHSIG, SIGKILL);  // an aborted test leaves no agent behind
    int code = 99;
    try {
      const auto inside = server();
      code = agent::run(config, self());
    } catch (const std::exception& error) {
      std::cerr << "agent: " << error.what() << std::endl;
    }
    ::_exit(code);
  }
  const auto ready = [&] {
    const auto answer = status();
    return answer && answer->value("ready", false);
  };
  if (!holds_within(20s, ready)) throw std::runtime_error("the agent does not get ready");
}

int World::stop(int signal) {
  ::kill(agent_, signal);
  int outcome = 0;
  check("waitpid", ::waitpid(std::exchange(agent_, -1), &outcome, 0));
  return WIFEXITED(outcome) ? WEXITSTATUS(outcome) : 128 + WTERMSIG(outcome);
}

std::optional<nlohmann::json> World::status() const {
  return control::query_status(config.paths("s1").socket("agent"));
}

std::uint64_t World::counter(const std::string& name) const {
  const auto answer = status();
  if (!answer) return 0;
  for (const char* part : {"programs", "agent"})
    if (answer->at(part).contains(name)) return answer->at(part).at(name).get<std::uint64_t>();
  throw std::logic_error("no counter " + name);
}

bool World::reaches(const std::string& name, std::uint64_t value) const {
  return holds_within(5s, [&] { return counter(name) >= value; });
}

UniqueFd World::listener(std::uint16_t port, bool ipv6, int backlog) const {
  const auto inside = server();
  UniqueFd fd(check("socket", ::socket(ipv6 ? AF_INET6 : AF_INET,
                                       SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0)));
  const int on = 1;
  check("SO_REUSEADDR", ::setsockopt(fd.get(), SOL_SOCKET, SO_REUSEADDR, &on, sizeof on));
  sockaddr_in6 any6{};
  any6.sin6_family = AF_INET6;
  any6.sin6_port = htons(port);
  sockaddr_in any4{};
  any4.sin_family = AF_INET;
  any4.sin_port = htons(port);
  const auto* address =
      ipv6 ? reinterpret_cast<const sockaddr*>(&any6) : reinterpret_cast<const sockaddr*>(&any4);
  check("bind", ::bind(fd.get(), address, ipv6 ? sizeof any6 : sizeof any4));
  check("listen", ::listen(fd.get(), backlog));
  return fd;
}

Endpoint World::vpa(const Endpoint& client, std::uint16_t port) {
  return {sys_test::address(client.address.is_ipv4() ? "100.64.128.5" : "fd7c::2:5"), port};
}

Bytes World::sealed(control::Outgoing message) { return sealed_by(*sealer_, message); }

Bytes World::sealed_by(control::Sealer& sealer, control::Outgoing& message) {
  sealer.seal(message);
  const auto header = std::as_bytes(std::span(&message.header, 1));
  Bytes datagram(header.begin(), header.end());
  datagram.insert(datagram.end(), message.payload.begin(), message.payload.end());
  return datagram;
}

void World::send_raw(std::span<const std::byte> datagram, bool ipv4) {
  send_datagram(ipv4 ? dispatcher4_ : dispatcher6_, ipv4 ? kServer4 : kServer6, datagram);
}

void World::send_as_switch(control::Outgoing message) {
  const bool ipv4 = message.header.family != abi::FAMILY_IPV6;
  send_raw(sealed_by(*switch_sealer_, message), ipv4);
}

void World::send(control::Outgoing message) {
  const bool ipv4 = message.header.family != abi::FAMILY_IPV6;
  send_raw(sealed(message), ipv4);
}

void World::transfer(const control::Transfer& transfer, const Snapshot& snapshot) {
  for (const control::Outgoing& message : control::transfer_messages(transfer, snapshot))
    send(message);
}

std::optional<Answer> World::answer(std::chrono::milliseconds within) {
  const auto datagram = receive_from({dispatcher4_.get(), dispatcher6_.get()}, within);
  if (!datagram) return {};
  const auto message = opener_->open(*datagram);
  if (!message)
    throw std::runtime_error("an answer that is not sound: " + control::to_string(message.error()));
  return Answer{message->header, {message->payload.begin(), message->payload.end()}};
}

std::optional<Bytes> World::control_datagram(const std::function<bool(std::uint8_t)>& wanted,
                                             std::chrono::milliseconds within) {
  const auto end = std::chrono::steady_clock::now() + within;
  while (std::chrono::steady_clock::now() < end) {
    auto datagram = receive_from({control4_.get(), control6_.get()}, 50ms);
    if (datagram && wanted(header_at<abi::wire_header>(*datagram, 0).type)) return datagram;
  }
  return {};
}

std::optional<abi::wire_header> World::to_switch(std::chrono::milliseconds within) {
  const auto datagram = control_datagram(
      [](std::uint8_t type) { return type != abi::WIRE_LOAD && type != abi::WIRE_HEARTBEAT; },
      within);
  if (!datagram) return {};
  return header_at<abi::wire_header>(*datagram, 0);
}

abi::wire_header World::heartbeat() {
  const auto datagram =
      control_datagram([](std::uint8_t type) { return type == abi::WIRE_HEARTBEAT; }, 5s);
  if (!datagram) throw std::runtime_error("no heartbeat");
  return header_at<abi::wire_header>(*datagram, 0);
}

void World::answer_heartbeat(const abi::wire_header& heartbeat, std::uint32_t boot) {
  control::Outgoing answer{heartbeat, {}};
  answer.header.target = heartbeat.sender;
  answer.header.detail = htonl(boot);
  send_as_switch(answer);
}

std::optional<abi::wire_header> World::load(std::chrono::milliseconds within) {
  const auto datagram =
      control_datagram([](std::uint8_t type) { return type == abi::WIRE_LOAD; }, within);
  if (!datagram) return {};
  const auto message = opener_->open(*datagram);
  if (!message) return {};
  return message->header;
}

void World::send_segment(const Endpoint& client, const Endpoint& local,
                         std::span<const std::byte> segment) {
  sockaddr_ll to{};
  to.sll_family = AF_PACKET;
  to.sll_protocol = htons(client.address.is_ipv4() ? ETH_P_IP : ETH_P_IPV6);
  to.sll_ifindex = interface_;
  to.sll_halen = 6;
  std::copy(server_mac_.begin(), server_mac_.end(), to.sll_addr);
  conn::give_packets(client, local, segment, [&](std::span<const std::byte> packet) {
    check("send packet", ::sendto(packets_.get(), packet.data(), packet.size(), 0,
                                  reinterpret_cast<const sockaddr*>(&to), sizeof to));
  });
}

void World::send_segment(const Endpoint& client, std::uint32_t seq, std::uint32_t ack,
                         std::uint8_t flags, std::string_view data, std::uint16_t port) {
  TcpHeader tcp{};
  tcp.seq = htonl(seq);
  tcp.ack = htonl(ack);
  tcp.offset = 5U << 4U;
  tcp.flags = flags;
  tcp.window = htons(500);
  Bytes segment(sizeof tcp + data.size());
  std::memcpy(segment.data(), &tcp, sizeof tcp);
  std::ranges::copy(bytes_of(data), segment.begin() + sizeof tcp);
  send_segment(client, vpa(client, port), segment);
}

std::vector<Sent> World::sent() {
  std::vector<Sent> all;
  Bytes buffer(65'536);
  sockaddr_ll from{};
  socklen_t length = sizeof from;
  for (;;) {
    const auto got = ::recvfrom(packets_.get(), buffer.data(), buffer.size(), 0,
                                reinterpret_cast<sockaddr*>(&from), &length);
    if (got < 0) return all;
    if (from.sll_pkttype == PACKET_OUTGOING) continue;
    if (auto sent = parse_sent(Bytes(buffer.begin(), buffer.begin() + got)))
      all.push_back(std::move(*sent));
  }
}

std::size_t World::resets() {
  std::size_t count = 0;
  for (const Sent& segment : sent()) count += (segment.flags & kRst) != 0;
  return count;
}

Snapshot snapshot_of(const Endpoint& client, Bytes received) {
  Snapshot snapshot;
  snapshot.local = {
      sys_test::address(client.address.is_ipv4() ? "203.0.113.10" : "2001:db8:113::10"), 80};
  snapshot.peer = client;
  snapshot.rcv_nxt = Seq{5'000} + static_cast<std::uint32_t>(received.size());
  snapshot.snd_una = snapshot.snd_nxt = {70'000};
  snapshot.received = std::move(received);
  snapshot.snd_wnd = 64'000;
  snapshot.mss = 1'400;
  snapshot.wscale = WindowScale{7, 9};
  snapshot.timestamps = Timestamps{1'000'000, 2'000'000, false};
  snapshot.sack = true;
  snapshot.srtt_us = 30'000;
  return snapshot;
}

control::Transfer transfer_of(const Endpoint& client, std::uint32_t generation,
                              std::uint16_t port) {
  return {.sender = 1,
          .target = 2,
          .service = 5,
          .target_port = port,
          .lane = 0,
          .generation = generation,
          .client = client};
}

Endpoint client4(std::uint16_t port) { return {sys_test::address("198.51.100.7"), port}; }
Endpoint client6(std::uint16_t port) { return {sys_test::address("2001:db8:5::7"), port}; }

UniqueFd accepted(const UniqueFd& listener, std::chrono::milliseconds within) {
  if (!readable_within(listener.get(), within)) return {};
  return UniqueFd(::accept4(listener.get(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
}

Endpoint peer_of(const UniqueFd& socket) {
  sockaddr_storage storage{};
  socklen_t length = sizeof storage;
  check("getpeername", ::getpeername(socket.get(), reinterpret_cast<sockaddr*>(&storage), &length));
  return Endpoint::from_sockaddr(storage);
}

Bytes read_bytes(const UniqueFd& socket, std::size_t length, std::chrono::milliseconds within) {
  Bytes all(length);
  std::size_t have = 0;
  const auto end = std::chrono::steady_clock::now() + within;
  while (have < length && std::chrono::steady_clock::now() < end) {
    if (!readable_within(socket.get(), 100ms)) continue;
    const auto got = ::recv(socket.get(), all.data() + have, length - have, MSG_DONTWAIT);
    if (got <= 0) break;
    have += static_cast<std::size_t>(got);
  }
  all.resize(have);
  return all;
}

}  // namespace agent_test
