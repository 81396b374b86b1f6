// SPDX-License-Identifier: MIT
#include "switch_driver.hpp"

#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <net/if.h>

#include <cstring>
#include <stdexcept>

#include "driver.skel.h"
#include "reference.skel.h"
#include "sys/check.hpp"

namespace tcpmig::bench {
namespace {

using namespace rig;
using sys::check_errno;

constexpr std::size_t kPayload = 200;  ///< a request

template <typename Bytes>
Object make_object(const std::string& name, Bytes bytes) {
  std::size_t size = 0;
  const void* begin = bytes(&size);
  return Object(name, begin, size);
}

Shot make_shot(const Packet& packet, const std::string& interface, abi::driver_mode mode,
               std::uint32_t first, std::uint32_t clients) {
  Shot shot{packet.bytes(), interface, {}};
  std::memcpy(shot.plan.head, shot.frame.data(),
              std::min<std::size_t>(abi::DRIVER_HEAD, shot.frame.size()));
  shot.plan.random = 88172645463325252ULL;
  shot.plan.mode = static_cast<std::uint32_t>(mode);
  shot.plan.order = abi::ORDER_RANDOM;
  shot.plan.first = first;
  shot.plan.clients = clients;
  shot.plan.network = kClientNetwork;
  return shot;
}

}  // namespace

Object::Object(const std::string& name, const void* bytes, std::size_t size)
    : object_(bpf_object__open_mem(bytes, size, nullptr), bpf_object__close) {
  if (!object_) throw std::runtime_error("cannot open the BPF object " + name);
  check_errno("load the BPF object " + name, bpf_object__load(object_.get()));
}

int Object::program(const std::string& name) const {
  return check_errno("find the program " + name, bpf_program__fd(bpf_object__find_program_by_name(
                                                     object_.get(), name.c_str())));
}

int Object::map(const std::string& name) const {
  return check_errno("find the map " + name,
                     bpf_object__find_map_fd_by_name(object_.get(), name.c_str()));
}

Driver::Driver(Backend backend)
    : backend_(backend),
      prefix_(backend == Backend::kTc ? "tc" : "xdp"),
      driver_(make_object("driver", driver__elf_bytes)),
      reference_(make_object("reference", reference__elf_bytes)) {}

int Driver::reference(const std::string& what) const {
  return reference_.program(prefix_ + "_" + what);
}

double Driver::run(int target, const Shot& shot, std::uint32_t repeat) {
  const std::uint32_t zero = 0;
  sys::map_update(driver_.map("plan"), zero, shot.plan);
  sys::map_update(driver_.map("target_" + prefix_), zero, static_cast<std::uint32_t>(target));
  __sk_buff skb{};
  xdp_md md{};
  skb.ifindex = skb.ingress_ifindex = md.ingress_ifindex = ::if_nametoindex(shot.interface.c_str());
  md.data_end = static_cast<std::uint32_t>(shot.frame.size());
  LIBBPF_OPTS(bpf_test_run_opts, options, .data_in = shot.frame.data(),
              .data_size_in = static_cast<std::uint32_t>(shot.frame.size()));
  options.ctx_in = backend_ == Backend::kTc ? static_cast<void*>(&skb) : &md;
  options.ctx_size_in = backend_ == Backend::kTc ? sizeof skb : sizeof md;
  options.repeat = static_cast<int>(repeat);
  check_errno("run a program",
              bpf_prog_test_run_opts(driver_.program("drive_" + prefix_), &options));
  const std::uint32_t sent = backend_ == Backend::kTc ? 7 : XDP_REDIRECT;  // 7: TC_ACT_REDIRECT
  if (options.retval != sent)
    throw std::runtime_error("a packet was not sent on: verdict " + std::to_string(options.retval));
  return options.duration;
}

double Driver::floor(const Shot& shot, std::uint32_t repeat) {
  return run(reference("nothing"), shot, repeat);
}

abi::flow_key key_of_client(const Family& f, std::uint32_t client) {
  abi::flow_key key =
      key_of(f, static_cast<std::uint16_t>(abi::DRIVER_FIRST_PORT + client % abi::DRIVER_PORTS));
  const std::uint32_t address = htonl(kClientNetwork + client / abi::DRIVER_PORTS);
  std::memcpy(key.client.bytes + 12, &address, 4);
  return key;
}

Shot inward(const Family& f, std::uint32_t first, std::uint32_t clients, std::uint8_t flags) {
  const Packet packet =
      packets::Ethernet{mac_of_interface("clients0"), mac_of_gateway(), {}} /
      packets::ip(f.client, f.vip) /
      packets::Tcp{.source = kClientPort, .destination = kPort, .seq = 1, .ack = 1, .flags = flags};
  return make_shot(packet, "clients0", abi::DRIVE_INWARD, first, clients);
}

Shot outward(const Family& f, std::uint32_t first, std::uint32_t clients) {
  const Packet packet =
      packets::Ethernet{mac_of_interface("nodes0"), mac_of_node(2), {}} /
      packets::ip(f.vpa(2), f.client) /
      packets::Tcp{.source = kTargetPort, .destination = kClientPort, .seq = 1, .ack = 1};
  return make_shot(packet, "nodes0", abi::DRIVE_OUTWARD, first, clients);
}

Shot commits(const Family& f, std::uint32_t first) {
  static std::uint64_t sequence = 1;
  constexpr std::uint32_t kReserved = 1'000'000;
  abi::wire_header header = transfer(f, abi::WIRE_COMMIT, 1, 2, 5);
  const Packet packet = control(f, header, Bytes(kPayload, 'p'));
  Shot shot = make_shot(packet, "nodes0", abi::DRIVE_COMMIT, first, 0);
  shot.plan.order = abi::ORDER_NEXT;
  std::memcpy(&shot.plan.wire, shot.frame.data() + 42, sizeof shot.plan.wire);
  shot.plan.wire.lane = 7;  // of nobody else here
  shot.plan.sequence = sequence;
  sequence += kReserved;
  shot.plan.key = key_of_sender(1, 1);
  return shot;
}

}  // namespace tcpmig::bench
