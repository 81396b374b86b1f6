// SPDX-License-Identifier: MIT
#include "bpf/switch_rig.hpp"

#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <net/if.h>
#include <time.h>
#include <unistd.h>

#include <cstring>
#include <iostream>
#include <numeric>
#include <stdexcept>

#include "bpf/lib_host.hpp"
#include "config/config.hpp"
#include "switch_tc.skel.h"
#include "switch_xdp.skel.h"
#include "sys/check.hpp"

namespace rig {
namespace {

using tcpmig::sys::check_errno;

constexpr std::uint32_t kSmall = 1024;  // entries of a test's tables
constexpr const char* kInterfaces[] = {"clients0", "nodes0", "nodes1"};
constexpr const char* kCounterNames[] = {
#define X(name, json, text) json,
    SWITCH_COUNTERS(X)
#undef X
};

bpf_object* load(Backend backend, std::uint32_t flows, std::uint32_t affinity) {
  std::size_t size = 0;
  const void* bytes =
      backend == Backend::kTc ? switch_tc__elf_bytes(&size) : switch_xdp__elf_bytes(&size);
  bpf_object* object = bpf_object__open_mem(bytes, size, nullptr);
  if (object == nullptr) throw std::runtime_error("open the switch's programs");
  bpf_map__set_max_entries(bpf_object__find_map_by_name(object, "flows"), flows);
  bpf_map__set_max_entries(bpf_object__find_map_by_name(object, "affinity"), affinity);
  check_errno("load the switch's programs", bpf_object__load(object));
  return object;
}

Action action_of(Backend backend, std::uint32_t verdict) {
  if (backend == Backend::kTc) {
    if (verdict == static_cast<std::uint32_t>(-1)) return Action::kKernel;
    if (verdict == 2) return Action::kDrop;      // TC_ACT_SHOT
    if (verdict == 7) return Action::kRedirect;  // TC_ACT_REDIRECT
  } else {
    if (verdict == XDP_PASS) return Action::kKernel;
    if (verdict == XDP_DROP) return Action::kDrop;
    if (verdict == XDP_REDIRECT) return Action::kRedirect;
  }
  throw std::runtime_error("verdict " + std::to_string(verdict));
}

}  // namespace

abi::siphash_key key_of_sender(unsigned node, unsigned slot) {
  return {0x1234567800000000U + node * 2 + slot, 0x8765432100000000U + node};
}

std::uint64_t now_ns() {
  timespec t{};
  ::clock_gettime(CLOCK_MONOTONIC, &t);
  return static_cast<std::uint64_t>(t.tv_sec) * 1000000000 + static_cast<std::uint64_t>(t.tv_nsec);
}

View Result::view() const {
  View v = packets::read(frame);
  INFO("checksums of what came out");
  CHECK(v.fault == "");
  return v;
}

Rig& Rig::get(Backend backend) {
  static Rig tc(Backend::kTc, kSmall, kSmall);
  static Rig xdp(Backend::kXdp, kSmall, kSmall);
  return backend == Backend::kTc ? tc : xdp;
}

std::unique_ptr<Rig> Rig::make(Backend backend, std::uint32_t flows) {
  std::unique_ptr<Rig> rig(new Rig(backend, flows, tcpmig::config::Limits().affinity));
  rig->fill_tables();
  return rig;
}

Rig::Rig(Backend backend, std::uint32_t flows, std::uint32_t affinity)
    : backend_(backend), object_(load(backend, flows, affinity)) {}

int Rig::program(const std::string& role) const {
  const std::string name = (backend_ == Backend::kTc ? "switch_tc_" : "switch_xdp_") + role;
  return bpf_program__fd(bpf_object__find_program_by_name(object_, name.c_str()));
}

void Rig::attach_xdp() const {
  for (const char* name : kInterfaces) {
    const int ifindex = static_cast<int>(::if_nametoindex(name));
    std::uint32_t attached = 0;
    check_errno("ask for the XDP program", bpf_xdp_query_id(ifindex, 0, &attached));
    const std::string role = std::string(name) == "clients0" ? "clients" : "nodes";
    if (attached == 0)
      check_errno("attach XDP", bpf_xdp_attach(ifindex, program(role), 0, nullptr));
  }
}

Rig::~Rig() { bpf_object__close(object_); }

int Rig::map(const std::string& name) const {
  return bpf_object__find_map_fd_by_name(object_, name.c_str());
}

template <typename Key>
void Rig::clear(const std::string& map_name) {
  const int fd = map(map_name);
  Key key{};
  while (bpf_map_get_next_key(fd, nullptr, &key) == 0) bpf_map_delete_elem(fd, &key);
}

void Rig::reset() {
  clear<abi::flow_key>("flows");
  clear<abi::flow_key>("affinity");
  clear<abi::vip_key>("vips");
  clear<abi::revoked_key>("revoked");
  clear<abi::ip_address>("own_addresses");
  clear<abi::ip_address>("node_addresses");
  fill_tables();
}

void Rig::fill_tables() {
  const std::uint32_t zero = 0, one = 1, id = kService;
  const abi::service_entry none{};
  abi::service_entry service{family(4).vip.raw(), family(6).vip.raw(), htons(kPort), 1, {}};
  abi::switch_settings settings{};
  settings.closing_ns = settings.idle_ns = 3600ULL * 1000000000;
  settings.hash = {11, 22};
  settings.control_port = htons(kControlPort);
  std::memcpy(settings.vpa4_prefix, family(4).vpa(0, 0).raw().bytes + 12, 4);
  std::memcpy(settings.vpa6_prefix, family(6).vpa(0, 0).raw().bytes, 16);
  settings.vpa4_prefix_length = 10;
  tcpmig::sys::map_update(map("settings"), zero, settings);
  tcpmig::sys::map_update(map("services"), id, service);
  service.vip4 = service.vip6 = none.vip4;
  tcpmig::sys::map_update(map("services"), std::uint32_t{kNoVipService}, service);
  for (const int version : {4, 6}) {
    const Family& f = family(version);
    tcpmig::sys::map_update(map("vips"), abi::vip_key{f.vip.raw(), htons(kPort), {}}, id);
    tcpmig::sys::map_update(map("vips"), abi::vip_key{f.vip.raw(), 0, {}}, zero);
    tcpmig::sys::map_update(map("own_addresses"), f.own_nodes.raw(), one);
    tcpmig::sys::map_update(map("own_addresses"), f.own_nodes1.raw(), one);
    for (int node = 1; node <= 7; node++)
      tcpmig::sys::map_update(map("node_addresses"), f.node(node).raw(),
                              static_cast<std::uint32_t>(node));
  }
  for (unsigned node = 1; node <= 7; node++) {
    abi::node_entry entry{};
    entry.address4 = family(4).node(static_cast<int>(node)).raw();
    entry.address6 = family(6).node(static_cast<int>(node)).raw();
    entry.keys.key[0] = key_of_sender(node, 0);
    entry.keys.key[1] = key_of_sender(node, 1);
    entry.keys.key_id[1] = 1;
    entry.ifindex = ::if_nametoindex(node == 4 ? "nodes1" : "nodes0");
    entry.role = node == 1 || node == 5 ? abi::NODE_DISPATCHER : abi::NODE_SERVER;
    tcpmig::sys::map_update(map("nodes"), node, entry);
  }
  std::vector<std::uint32_t> slots(abi::MAGLEV_SIZE), dispatchers(abi::MAGLEV_SIZE, 1);
  std::iota(slots.begin(), slots.end(), 0U);
  std::uint32_t count = abi::MAGLEV_SIZE;
  check_errno("fill maglev", bpf_map_update_batch(map("maglev"), slots.data(), dispatchers.data(),
                                                  &count, nullptr));
}

Counts Rig::counters() const {
  Counts counts;
  for (std::uint32_t i = 0; i < abi::SWITCH_COUNTER_MAX; i++)
    for (const auto value : tcpmig::sys::map_lookup_percpu<std::uint64_t>(map("counters"), i))
      counts[kCounterNames[i]] += value;
  return counts;
}

Result Rig::shoot(const std::string& role, const std::string& interface, const Bytes& frame,
                  std::uint32_t gso_size) const {
  Bytes out(frame.size() + 256);
  __sk_buff skb{};
  xdp_md md{};
  skb.ifindex = skb.ingress_ifindex = md.ingress_ifindex = ::if_nametoindex(interface.c_str());
  skb.gso_size = gso_size;
  md.data_end = static_cast<std::uint32_t>(frame.size());
  LIBBPF_OPTS(bpf_test_run_opts, options, .data_in = frame.data(), .data_out = out.data(),
              .data_size_in = static_cast<std::uint32_t>(frame.size()),
              .data_size_out = static_cast<std::uint32_t>(out.size()));
  options.ctx_in = backend_ == Backend::kTc ? static_cast<void*>(&skb) : &md;
  options.ctx_size_in = backend_ == Backend::kTc ? sizeof skb : sizeof md;
  check_errno("run " + role, bpf_prog_test_run_opts(program(role), &options));
  out.resize(options.data_size_out);
  return {action_of(backend_, options.retval), out, {}};
}

Result Rig::run(const std::string& role, const std::string& interface, const Bytes& frame,
                std::uint32_t gso_size) {
  const Counts before = counters();
  Result result = shoot(role, interface, frame, gso_size);
  for (const auto& [counter, value] : counters())
    if (value != before.at(counter)) result.counted[counter] = value - before.at(counter);
  return result;
}

Result Rig::from_client(const Packet& packet, std::uint32_t gso_size) {
  return run("clients", "clients0", packet.bytes(), gso_size);
}
Result Rig::from_node(const Packet& packet, std::uint32_t gso_size) {
  return run("nodes", "nodes0", packet.bytes(), gso_size);
}
Result Rig::from_nodes1(const Packet& packet) {
  Packet there = packet;
  there.ethernet.destination = mac_of_interface("nodes1");
  return run("nodes", "nodes1", there.bytes());
}

abi::flow_key key_of(const Family& f, std::uint16_t client_port) {
  return {f.client.raw(),
          f.vip.raw(),
          htons(client_port),
          htons(kPort),
          static_cast<std::uint8_t>(f.version),
          {}};
}

std::optional<abi::flow_value> Rig::flow(const Family& f, std::uint16_t client_port) {
  return tcpmig::sys::map_lookup<abi::flow_value>(map("flows"), key_of(f, client_port));
}

void Rig::set_flow(const Family& f, const abi::flow_value& value, std::uint16_t client_port) {
  tcpmig::sys::map_update(map("flows"), key_of(f, client_port), value);
}

abi::flow_value Rig::owned(unsigned owner, unsigned previous, unsigned generation, bool spoke) {
  abi::flow_value value{};
  value.owner.is.owner = owner & 1023;
  value.owner.is.previous = previous & 1023;
  value.owner.is.port = kTargetPort;
  value.owner.is.generation = generation & abi::GENERATION_MASK;
  value.owner.is.spoke = spoke;
  value.last_seen_ns = value.committed_ns = now_ns();
  value.service = kService;
  return value;
}

std::optional<abi::affinity_value> Rig::bound(const Family& f, std::uint16_t client_port) {
  return tcpmig::sys::map_lookup<abi::affinity_value>(map("affinity"), key_of(f, client_port));
}

void Rig::bind(const Family& f, std::uint16_t dispatcher, std::uint16_t client_port) {
  abi::affinity_value value{};
  value.last_seen_ns = now_ns();
  value.dispatcher = dispatcher;
  value.service = kService;
  tcpmig::sys::map_update(map("affinity"), key_of(f, client_port), value);
}

void Rig::set_settings(const std::function<void(abi::switch_settings&)>& change) {
  const std::uint32_t zero = 0;
  auto settings = tcpmig::sys::map_lookup<abi::switch_settings>(map("settings"), zero).value();
  change(settings);
  tcpmig::sys::map_update(map("settings"), zero, settings);
}

void Rig::set_node(unsigned id, const std::function<void(abi::node_entry&)>& change) {
  auto node = tcpmig::sys::map_lookup<abi::node_entry>(map("nodes"), id).value();
  change(node);
  tcpmig::sys::map_update(map("nodes"), id, node);
}

abi::traffic Rig::traffic(const std::string& map_name, std::uint32_t index) {
  abi::traffic sum{};
  for (const auto& t : tcpmig::sys::map_lookup_percpu<abi::traffic>(map(map_name), index)) {
    sum.packets_in += t.packets_in;
    sum.bytes_in += t.bytes_in;
    sum.packets_out += t.packets_out;
    sum.bytes_out += t.bytes_out;
  }
  return sum;
}

bool Rig::forget(const Family& f, std::uint64_t dead_ns) {
  abi::forget_request request{key_of(f), dead_ns, 0, 0};
  LIBBPF_OPTS(bpf_test_run_opts, options, .ctx_in = &request, .ctx_size_in = sizeof request);
  check_errno("run forget", bpf_prog_test_run_opts(program("forget"), &options));
  return request.removed == 1;
}

abi::reap_request Rig::reap(abi::reap_request request) {
  LIBBPF_OPTS(bpf_test_run_opts, options, .ctx_in = &request, .ctx_size_in = sizeof request);
  check_errno("run reap", bpf_prog_test_run_opts(program("reap"), &options));
  return request;
}

std::vector<abi::revocation> Rig::revocations() {
  std::vector<abi::revocation> all;
  const auto take = [](void* list, void* record, std::size_t size) {
    REQUIRE(size == sizeof(abi::revocation));
    abi::revocation one{};
    std::memcpy(&one, record, sizeof one);
    static_cast<std::vector<abi::revocation>*>(list)->push_back(one);
    return 0;
  };
  const std::unique_ptr<ring_buffer, void (*)(ring_buffer*)> ring(
      ring_buffer__new(map("revocations"), take, &all, nullptr), ring_buffer__free);
  REQUIRE(ring != nullptr);
  ring_buffer__consume(ring.get());
  return all;
}

bool can_run() {
  if (::geteuid() == 0) return true;
  std::cout << "SKIPPED: needs root (BPF_PROG_TEST_RUN, network namespaces)\n";
  return false;
}

Case any_case() {
  const auto backend = GENERATE(Backend::kTc, Backend::kXdp);
  const auto version = GENERATE(4, 6);
  return {backend, version};
}

namespace {
Rig& entered(Backend backend) {
  Rig& rig = Rig::get(backend);
  // XDP's TEST_RUN wants a receive queue that knows XDP; on veth that takes a program on the
  // interface
  if (backend == Backend::kXdp) rig.attach_xdp();
  rig.reset();
  return rig;
}
}  // namespace

World::World(Case c) : enter_(topology()), s(entered(c.backend)), f(family(c.version)) {}

Packet World::tcp_in(packets::Tcp tcp, std::uint8_t ttl) const {
  if (tcp.source == 0) tcp.source = kClientPort;
  if (tcp.destination == 0) tcp.destination = kPort;
  return packets::Ethernet{mac_of_interface("clients0"), mac_of_client(), {}} /
         packets::ip(f.client, f.vip, ttl) / tcp;
}

Packet World::tcp_out(int node, packets::Tcp tcp, std::uint8_t ttl) const {
  if (tcp.source == 0) tcp.source = kTargetPort;
  if (tcp.destination == 0) tcp.destination = kClientPort;
  return packets::Ethernet{mac_of_interface("nodes0"), mac_of_node(node), {}} /
         packets::ip(f.vpa(node), f.client, ttl) / tcp;
}

void tag(abi::wire_header& header) {
  const abi::siphash_key key = key_of_sender(ntohs(header.sender), header.key_id & 1U);
  header.switch_tag = abi::siphash_words(&key, &header, abi::WIRE_TAGGED / 8);
}

bool tagged_for(const abi::wire_header& header, unsigned node) {
  const abi::siphash_key key = key_of_sender(node, header.key_id & 1U);
  return header.switch_tag == abi::siphash_words(&key, &header, abi::WIRE_TAGGED / 8);
}

abi::wire_header transfer(const Family& f, abi::wire_type type, unsigned sender, unsigned target,
                          unsigned generation) {
  static std::uint64_t sequence = 1;
  abi::wire_header h{};
  h.magic = htonl(abi::WIRE_MAGIC);
  h.version = abi::WIRE_VERSION;
  h.type = static_cast<std::uint8_t>(type);
  h.key_id = 1;
  h.sequence = __builtin_bswap64(sequence++);
  h.sender = htons(static_cast<std::uint16_t>(sender));
  h.target = htons(static_cast<std::uint16_t>(target));
  h.lane = 3;
  h.family = static_cast<std::uint8_t>(f.version);
  h.service = htons(kService);
  h.generation = htonl(generation);
  h.client = f.client.raw();
  h.client_port = htons(kClientPort);
  h.target_port = htons(kTargetPort);
  h.parts = htons(1);
  return h;
}

Packet control(const Family& f, abi::wire_header header, const Bytes& payload) {
  header.payload_length = htonl(static_cast<std::uint32_t>(payload.size()));
  tag(header);
  Bytes bytes(sizeof header);
  std::memcpy(bytes.data(), &header, sizeof header);
  bytes.insert(bytes.end(), payload.begin(), payload.end());
  const int named = ntohs(header.sender), sender = named <= 7 ? named : 1;
  return packets::Ethernet{mac_of_interface("nodes0"), mac_of_node(sender), {}} /
         packets::ip(f.node(sender), f.own_nodes) /
         packets::Udp{50000, kControlPort, bytes, true, {}};
}

abi::wire_header header_of(const View& view) {
  abi::wire_header header{};
  REQUIRE(view.payload.size() >= sizeof header);
  std::memcpy(&header, view.payload.data(), sizeof header);
  return header;
}

}  // namespace rig
