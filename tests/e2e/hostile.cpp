// SPDX-License-Identifier: MIT
#include "e2e/hostile.hpp"

#include <arpa/inet.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <net/if.h>
#include <netinet/ip.h>
#include <netinet/ip6.h>
#include <netinet/tcp.h>
#include <netinet/udp.h>
#include <poll.h>
#include <sys/socket.h>

#include <cstring>

#include "catch.hpp"
#include "e2e/raw_packet.hpp"
#include "shared/switch_maps.h"
#include "sys/check.hpp"
#include "sys/netns.hpp"

namespace tcpmig::e2e {
namespace {

constexpr std::uint8_t kLane = abi::MAX_LANES - 1;
constexpr std::size_t kUdp = sizeof(ethhdr) + sizeof(iphdr);

std::string bytes_of_message(const control::Outgoing& message) {
  return std::string(reinterpret_cast<const char*>(&message.header), sizeof message.header) +
         std::string(reinterpret_cast<const char*>(message.payload.data()), message.payload.size());
}

template <typename Header>
Header header_at(const char* bytes) {
  Header header{};
  std::memcpy(&header, bytes, sizeof header);
  return header;
}

}  // namespace

Sprayer::Sprayer(const TestLab& lab, const std::string& node, const sys::Endpoint& to) {
  const auto [address, length] = to.to_sockaddr();
  const sys::EnterNetns inside(lab.netns(node));
  fd_.reset(sys::check("socket", ::socket(to.address.family(), SOCK_DGRAM | SOCK_CLOEXEC, 0)));
  sys::check("connect", ::connect(fd_.get(), reinterpret_cast<const sockaddr*>(&address), length));
}

bool Sprayer::send(const std::string& datagram) const {
  return ::send(fd_.get(), datagram.data(), datagram.size(), 0) ==
         static_cast<ssize_t>(datagram.size());
}

Forger::Forger(const TestLab& lab, const std::string& sender)
    : lab_(lab),
      sealer_(control::Secret::load(lab->config().secret_file), lab->config().find_node(sender)->id,
              kLane) {}

std::string Forger::seal(control::Outgoing& message) {
  message.header.sequence = 0;
  sealer_.seal(message);
  return bytes_of_message(message);
}

std::string Forger::message(std::uint8_t type, const std::string& target,
                            const sys::Endpoint& client, control::Generation generation) {
  control::Outgoing message{};
  abi::wire_header& header = message.header;
  header.type = type;
  header.target = htons(lab_->config().find_node(target)->id);
  header.family = client.address.is_ipv4() ? abi::FAMILY_IPV4 : abi::FAMILY_IPV6;
  header.service = htons(1);
  header.generation = htonl(generation);
  header.client = client.address.raw();
  header.client_port = htons(client.port);
  header.target_port = htons(80);
  header.parts = htons(1);
  return seal(message);
}

std::string Forger::again(const std::string& datagram) {
  control::Outgoing message{};
  message.header = header_at<abi::wire_header>(datagram.data());
  message.payload = std::as_bytes(std::span(datagram)).subspan(sizeof message.header);
  return seal(message);
}

std::string spoiled(const std::string& datagram, std::minstd_rand& random) {
  std::string bytes = datagram;
  switch (random() % 4) {
    case 0:
      for (auto bits = random() % 4 + 1; bits > 0; --bits)
        bytes[random() % 112] ^= static_cast<char>(1U << random() % 8);  // what both tags cover
      break;
    case 1:
      bytes.resize(random() % bytes.size());
      break;
    case 2:
      bytes.append(1 + random() % 500, 'x');
      break;
    default:
      bytes.resize(random() % 500);
      for (char& byte : bytes) byte = static_cast<char>(random());
  }
  return bytes;
}

std::string payload_of(const std::string& frame) { return frame.substr(kUdp + sizeof(udphdr)); }

std::uint16_t source_port_of(const std::string& frame) {
  return ntohs(header_at<udphdr>(frame.data() + kUdp).source);
}

std::map<std::string, std::uint64_t> switch_counters(const TestLab& lab) {
  return lab::role_status(*lab, "switch1").at("counters");
}

std::uint64_t refused_since(const TestLab& lab,
                            const std::map<std::string, std::uint64_t>& before) {
  std::uint64_t sum = 0;
  for (const auto& [name, value] : switch_counters(lab))
    if (name.starts_with("refused_") || name == "gone_late" ||
        (name.starts_with("drop_") && name != "drop_late_ack"))
      sum += value - before.at(name);
  return sum;
}

void flood_syns(const TestLab& lab, bool ipv6, unsigned count, std::uint32_t seed) {
  std::minstd_rand random(seed);
  const sys::Endpoint to = vip(ipv6);
  RawSocket raw(lab, "client1", ipv6);
  for (unsigned i = 0; i < count; ++i) {
    // benchmarking networks (RFC 2544, RFC 5180): nobody is there
    const auto low = static_cast<unsigned>(random());
    const std::string text =
        ipv6 ? "2001:2::" + std::to_string(low % 9999) + ":" + std::to_string(low / 9999 % 9999)
             : "198.18." + std::to_string(low % 256) + "." + std::to_string(low / 256 % 256);
    tcphdr syn{};
    syn.source = htons(static_cast<std::uint16_t>(1024 + random() % 60'000));
    syn.dest = htons(to.port);
    syn.seq = static_cast<std::uint32_t>(random());
    syn.doff = 5;
    syn.syn = 1;
    syn.window = htons(64'000);
    raw.send_tcp(sys::Address::parse(text).value(), to.address, syn);
  }
}

std::optional<Numbers> numbers_of(const TestLab& lab, const sys::Endpoint& client) {
  const sys::EnterNetns inside(lab.netns("client1"));
  const bool ipv4 = client.address.is_ipv4();
  const sys::UniqueFd fd(
      sys::check("packet socket", ::socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC, htons(ETH_P_ALL))));
  const std::size_t l4 = sizeof(ethhdr) + (ipv4 ? sizeof(iphdr) : sizeof(ip6_hdr));
  pollfd wait{fd.get(), POLLIN, 0};
  const auto deadline = std::chrono::steady_clock::now() + 5s;
  while (std::chrono::steady_clock::now() < deadline) {
    if (::poll(&wait, 1, 100) <= 0) continue;
    char bytes[2048];
    const ssize_t got = ::recv(fd.get(), bytes, sizeof bytes, 0);
    if (got < static_cast<ssize_t>(l4 + sizeof(tcphdr)) ||
        bytes[sizeof(ethhdr)] != (ipv4 ? 0x45 : 0x60))
      continue;
    const auto tcp = header_at<tcphdr>(bytes + l4);
    if (ntohs(tcp.source) == client.port && tcp.dest == htons(80) && tcp.ack)
      return Numbers{ntohl(tcp.seq), ntohl(tcp.ack_seq)};
  }
  return std::nullopt;
}

void send_as_client(const TestLab& lab, const sys::Endpoint& from, const sys::Endpoint& to,
                    Numbers numbers, std::uint8_t flags) {
  tcphdr header{};
  header.source = htons(from.port);
  header.dest = htons(to.port);
  header.seq = htonl(numbers.seq);
  header.ack_seq = htonl(numbers.ack);
  header.doff = 5;
  header.window = htons(100);
  header.fin = flags & 1U;
  header.syn = flags >> 1U & 1U;
  header.rst = flags >> 2U & 1U;
  header.ack = flags >> 4U & 1U;
  RawSocket(lab, "client1", !from.address.is_ipv4()).send_tcp(from.address, to.address, header);
}

}  // namespace tcpmig::e2e
