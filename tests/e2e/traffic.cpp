// SPDX-License-Identifier: MIT
#include "e2e/traffic.hpp"

#include <arpa/inet.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <net/if.h>
#include <netinet/ip.h>
#include <netinet/tcp.h>
#include <netinet/udp.h>
#include <poll.h>
#include <sys/socket.h>

#include <cstring>
#include <map>

#include "catch.hpp"
#include "e2e/raw_packet.hpp"
#include "shared/switch_maps.h"
#include "shared/wire.h"
#include "sys/check.hpp"
#include "sys/netns.hpp"

namespace tcpmig::e2e {

SlowDownload::SlowDownload(const TestLab& lab, const lab::Payload& file, bool ipv6)
    : file_(file), client_(lab.netns("client1"), vip(ipv6)) {
  client_.send(get("/" + file.name, "Connection: close\r\n"));
}

bool SlowDownload::begun() {
  char byte = 0;
  first_byte_ = first_byte_ || ::recv(client_.fd(), &byte, 1, MSG_PEEK | MSG_DONTWAIT) == 1;
  return first_byte_;
}

bool SlowDownload::complete() {
  const Response response = client_.receive();
  return response.status == 200 && lab::sha256_of_bytes(response.body) == file_.sha256;
}

void check_drop(const TestLab& lab, const std::string& counter, const std::function<void()>& act) {
  INFO(counter);
  const auto drops = [&] {
    const auto status = lab::role_status(*lab, "switch1");
    std::map<std::string, std::uint64_t> all;
#define X(name, json, text)                        \
  if (std::string_view(json).starts_with("drop_")) \
    all[json] = lab::find_number(status, json).value_or(0);
    SWITCH_COUNTERS(X)
#undef X
    return all;
  };
  auto before = drops();
  act();
  CHECK(lab::wait_until(3s, [&] { return drops().at(counter) > before.at(counter); }));
  for (const auto& [name, value] : drops())
    if (name != counter && name != "drop_late_ack") {
      INFO(name);
      CHECK(value == before.at(name));
    }
}

void send_forged_reset(const TestLab& lab, const std::string& node, const sys::Endpoint& from,
                       const sys::Endpoint& to) {
  tcphdr header{};
  header.source = htons(from.port);
  header.dest = htons(to.port);
  header.seq = htonl(1);
  header.doff = 5;
  header.rst = 1;
  RawSocket(lab, node, !to.address.is_ipv4()).send_tcp(from.address, to.address, header);
}

void send_forged_datagram(const TestLab& lab, const std::string& node, const sys::Endpoint& from,
                          const sys::Endpoint& to, const std::string& payload) {
  RawSocket(lab, node, !to.address.is_ipv4()).send_udp(from, to, payload);
}

ControlTap::ControlTap(const TestLab& lab, const std::string& node, std::uint8_t type)
    : port_(lab->config().control_port), type_(type) {
  const sys::EnterNetns inside(lab.netns(node));
  fd_.reset(sys::check("packet socket", ::socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC, 0)));
  sockaddr_ll address{};
  address.sll_family = AF_PACKET;
  address.sll_protocol = htons(ETH_P_ALL);
  address.sll_ifindex = static_cast<int>(::if_nametoindex("eth0"));
  sys::check("bind packet socket",
             ::bind(fd_.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address));
}

std::string ControlTap::next(std::chrono::milliseconds limit) {
  constexpr std::size_t kUdp = sizeof(ethhdr) + sizeof(iphdr);
  constexpr std::size_t kMessage = kUdp + sizeof(udphdr);
  const auto deadline = std::chrono::steady_clock::now() + limit;
  pollfd wait{fd_.get(), POLLIN, 0};
  while (std::chrono::steady_clock::now() < deadline) {
    if (::poll(&wait, 1, 100) <= 0) continue;
    char bytes[2048];
    const ssize_t got = ::recv(fd_.get(), bytes, sizeof bytes, 0);
    if (got < static_cast<ssize_t>(kMessage + abi::WIRE_HEADER_SIZE)) continue;
    udphdr udp{};
    abi::wire_header message{};
    std::memcpy(&udp, bytes + kUdp, sizeof udp);
    std::memcpy(&message, bytes + kMessage, sizeof message);
    if (bytes[sizeof(ethhdr)] != 0x45 || udp.dest != htons(port_) || message.type != type_ ||
        message.magic != htonl(abi::WIRE_MAGIC))
      continue;
    std::string frame(bytes, static_cast<std::size_t>(got));
    // what is seen on its way out is without its checksum still: none is right for UDP over IPv4
    frame[kUdp + offsetof(udphdr, check)] = frame[kUdp + offsetof(udphdr, check) + 1] = 0;
    return frame;
  }
  return {};
}

void ControlTap::replay(const std::string& frame) const {
  sys::check("replay", ::send(fd_.get(), frame.data(), frame.size(), 0));
}

}  // namespace tcpmig::e2e
