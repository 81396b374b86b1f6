// SPDX-License-Identifier: MIT
#include "bpf/flood.hpp"

#include <bpf/bpf.h>
#include <net/if.h>

#include <cstring>

#include "sys/check.hpp"

namespace flood {

using namespace rig;

namespace {

constexpr std::size_t kUdpHeader = 8;
constexpr std::uint8_t kLane = 15;  // of no other test

std::uint16_t port_of_flow(std::uint32_t number) {
  return static_cast<std::uint16_t>(kFirstPort + number % kFlows);
}

}  // namespace

Flood::Flood(const World& world, std::uint32_t seed) : world_(world), random_(seed) {
  const auto say = [&](abi::wire_type type, unsigned sender, unsigned target, std::uint16_t flow) {
    abi::wire_header h = transfer(world_.f, type, sender, target, kGeneration);
    h.client_port = htons(port_of_flow(flow));
    seeds_.push_back(control(world_.f, h, Bytes(type == abi::WIRE_RENEW ? 0 : 200, 'p')).bytes());
    world_.s.shoot("nodes", "nodes0", seeds_.back());
  };
  for (std::uint16_t flow = 0; flow < kFlows; flow++) say(abi::WIRE_COMMIT, 1, 2, flow);
  for (std::uint16_t flow = 0; flow < kFlows; flow += 2) {  // the others stay silent
    Packet first = world_.tcp_out(2, {.destination = port_of_flow(flow), .flags = packets::kAck});
    world_.s.shoot("nodes", "nodes0", first.bytes());
  }
  say(abi::WIRE_DATA, 1, 2, 1);
  say(abi::WIRE_RENEW, 2, 0, 2);
  say(abi::WIRE_GONE, 2, 0, kGone);
}

std::size_t Flood::header_offset() const {
  return 14 + (world_.f.version == 4 ? 20U : 40U) + kUdpHeader;
}

abi::wire_header Flood::header() const {
  abi::wire_header h{};
  std::memcpy(&h, frame_.data() + header_offset(), sizeof h);
  return h;
}

void Flood::put(const abi::wire_header& h) {
  std::memcpy(frame_.data() + header_offset(), &h, sizeof h);
}

void Flood::put_tagged(abi::wire_header h) {
  static std::uint64_t number = 0;  // the switch's windows outlive this object
  h.lane = kLane;
  h.sequence = __builtin_bswap64(++number);
  tag(h);
  put(h);
}

void Flood::take_seed() {
  const Bytes& seed = seeds_[random() % seeds_.size()];
  frame_.assign(seed.begin(), seed.end());
}

void Flood::fill() {
  frame_.resize(header_offset() + random() % 300);
  for (std::size_t i = header_offset(); i < frame_.size(); i++)
    frame_[i] = static_cast<std::uint8_t>(random());
  const std::size_t udp = frame_.size() - header_offset() + kUdpHeader;
  const std::size_t ip = world_.f.version == 4 ? udp + 20 : udp;
  for (const auto& [place, length] :
       {std::pair(header_offset() - 4, udp), std::pair(world_.f.version == 4 ? 16UL : 18UL, ip)}) {
    frame_[place] = static_cast<std::uint8_t>(length >> 8);
    frame_[place + 1] = static_cast<std::uint8_t>(length);
  }
}

void Flood::mutate() {
  for (auto bits = random() % 4 + 1; bits > 0; bits--)
    frame_[random() % frame_.size()] ^= static_cast<std::uint8_t>(1U << random() % 8);
}

/// Not into the Ethernet header: that is no packet, the kernel's test run refuses it.
void Flood::cut() {
  const std::size_t ip = header_offset() - kUdpHeader;
  frame_.resize(ip + random() % (frame_.size() - ip));
}

void Flood::change_length() {
  const std::size_t udp = header_offset() - kUdpHeader, ip = world_.f.version == 4 ? 16 : 18;
  const std::size_t places[] = {udp + 4, ip, header_offset() + 102};  // payload_length's low half
  std::uint8_t* place = &frame_[places[random() % 3]];
  place[random() % 2] ^= static_cast<std::uint8_t>(random() % 255 + 1);
}

void Flood::stale() {
  constexpr unsigned kOld[] = {0, 1, kGeneration - 1, kGeneration + 2, kGeneration + (1U << 26)};
  abi::wire_header h = header();
  h.generation = htonl(kOld[random() % std::size(kOld)]);
  put_tagged(h);
}

void Flood::unknown() {
  abi::wire_header h = header();
  const bool lease = h.type >= abi::WIRE_GONE;
  constexpr unsigned kNobody[] = {0, 9, 600, 1023, 1024, 60000};
  switch (random() % 3) {
    case 0:
      h.service = htons(static_cast<std::uint16_t>(random() % 2 ? 20000U : kService + 1U));
      return put_tagged(h);
    case 1:
      h.target = htons(static_cast<std::uint16_t>(kNobody[random() % std::size(kNobody)]));
      if (lease) h.generation = 0;  // has no target
      return put_tagged(h);
    default:
      h.sender = htons(static_cast<std::uint16_t>(kNobody[random() % std::size(kNobody)]));
      return put_tagged(h);
  }
}

void Flood::stranger() {
  constexpr std::uint16_t kOthers[] = {3, 7};
  abi::wire_header h = header();
  h.sender = htons(kOthers[random() % 2]);
  h.generation = htonl(kGeneration + random() % 2);
  if (random() % 8 == 0) h.client_port = htons(static_cast<std::uint16_t>(random() % 1024));
  put_tagged(h);
}

std::span<const std::uint8_t> Flood::make(Kind kind) {
  take_seed();
  switch (kind) {
    case Kind::kRandom:
      fill();
      break;
    case Kind::kMutated:
      mutate();
      break;
    case Kind::kTruncated:
      cut();
      break;
    case Kind::kLength:
      change_length();
      break;
    case Kind::kTag: {
      abi::wire_header h = header();
      h.sequence = __builtin_bswap64((1ULL << 40) + random());
      h.switch_tag ^= std::uint64_t{random() | 1U} << random() % 32;
      put(h);
      break;
    }
    case Kind::kReplayed: {
      abi::wire_header h = header();
      h.generation = htonl(kGeneration + random() % 2);
      tag(h);
      put(h);
      break;
    }
    case Kind::kStale:
      stale();
      break;
    case Kind::kUnknown:
      unknown();
      break;
    case Kind::kStranger:
      stranger();
      break;
    case Kind::kClients: {
      make(kKinds[random() % (kKinds.size() - 1)]);
      const packets::Mac to = mac_of_interface("clients0");
      std::copy_n(to.begin(), std::min(to.size(), frame_.size()), frame_.begin());
      break;
    }
  }
  return frame_;
}

Gun::Gun(const World& world)
    : backend_(world.s.backend()),
      clients_{world.s.program("clients"), ::if_nametoindex("clients0")},
      nodes_{world.s.program("nodes"), ::if_nametoindex("nodes0")} {}

std::uint32_t Gun::fire(const Side& side, std::span<const std::uint8_t> frame) const {
  __sk_buff skb{};
  xdp_md md{};
  skb.ifindex = skb.ingress_ifindex = md.ingress_ifindex = side.ifindex;
  md.data_end = static_cast<std::uint32_t>(frame.size());
  LIBBPF_OPTS(bpf_test_run_opts, options, .data_in = frame.data(),
              .data_size_in = static_cast<std::uint32_t>(frame.size()));
  options.ctx_in = backend_ == Backend::kTc ? static_cast<void*>(&skb) : &md;
  options.ctx_size_in = backend_ == Backend::kTc ? sizeof skb : sizeof md;
  tcpmig::sys::check_errno("run a program of the switch",
                           bpf_prog_test_run_opts(side.program, &options));
  return options.duration;
}

}  // namespace flood
