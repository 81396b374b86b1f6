// SPDX-License-Identifier: MIT
#include "agent/programs.hpp"

#include <arpa/inet.h>
#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <spdlog/spdlog.h>

#include <cstring>
#include <numeric>
#include <utility>

#include "guard.skel.h"
#include "resume.skel.h"
#include "sys/check.hpp"
#include "sys/ledger.hpp"

namespace tcpmig::agent {
namespace {

constexpr const char* kKfunc = "bpf_sk_assign_tcp_reqsk";
constexpr const char* kWirePin = "link_resume_wire";
constexpr const char* kGuardPin = "link_guard";
constexpr const char* kTunPin = "link_resume_tun";
// with clsact: resume before guard
constexpr std::uint32_t kWirePriority = 0x7463;
constexpr std::uint32_t kGuardPriority = 0x7464;

struct CloseGuard {
  void operator()(guard* skeleton) const { guard__destroy(skeleton); }
};
struct CloseResume {
  void operator()(resume* skeleton) const { resume__destroy(skeleton); }
};
using GuardPtr = std::unique_ptr<guard, CloseGuard>;
using ResumePtr = std::unique_ptr<resume, CloseResume>;

[[noreturn]] void refuse(const std::string& what, int error) {
  throw std::system_error(-error, std::generic_category(), what);
}

/// Of the map of a former run, if there is one: to forget which transfers were opened is worse than another limit. (Copying them into a
/// larger map would miss what the programs, which still run, put into the old one meanwhile.)
std::uint32_t tombstones_capacity(const config::Config& config, const sys::PinDirectory& pins) {
  const std::uint32_t wanted = config.limits.tombstones;
  const auto pinned = pins.open("tombstones");
  if (!pinned) return wanted;
  bpf_map_info info{};
  std::uint32_t length = sizeof info;
  sys::check_errno("ask for BPF map info", bpf_obj_get_info_by_fd(pinned->get(), &info, &length));
  if (info.max_entries != wanted)
    spdlog::warn(
        "the tombstones of a former run are kept, {} of them at most: limits.tombstones = "
        "{} takes effect after `down`",
        info.max_entries, wanted);
  return info.max_entries;
}

GuardPtr load_guard(const config::Config& config, const sys::PinDirectory& pins) {
  GuardPtr skeleton(guard__open());
  if (!skeleton) refuse("open the guard program", -errno);
  bpf_map__set_max_entries(skeleton->maps.tombstones, tombstones_capacity(config, pins));
  sys::adopt_pinned_maps(skeleton->obj, pins);
  if (const int error = guard__load(skeleton.get()); error < 0)
    refuse("load the guard program", error);
  sys::pin_maps(skeleton->obj, pins);
  return skeleton;
}

/// The resume program on the maps that guard has pinned. nullptr: `missing` says why.
ResumePtr load_resume(std::uint32_t tombstones, const sys::PinDirectory* pins,
                      std::string& missing) {
  missing = sys::kfunc_missing(kKfunc);
  if (!missing.empty()) return {};
  ResumePtr skeleton(resume__open());
  if (!skeleton) refuse("open the resume program", -errno);
  bpf_map__set_max_entries(skeleton->maps.tombstones, tombstones);
  if (pins != nullptr) sys::adopt_pinned_maps(skeleton->obj, *pins);
  if (const int error = resume__load(skeleton.get()); error < 0) {
    missing = std::string("the kernel refuses the resume program: ") + std::strerror(-error);
    return {};
  }
  if (pins != nullptr) sys::pin_maps(skeleton->obj, *pins);
  return skeleton;
}

}  // namespace

struct Programs::Skeletons {
  GuardPtr guard_programs;
  ResumePtr resume_programs;
};

Programs::Programs(const config::Config& config, const config::Node& self,
                   const sys::PinDirectory& pins)
    : config_(config),
      self_(self),
      pins_(pins),
      skeletons_(std::make_unique<Skeletons>()),
      events_(nullptr, ring_buffer__free) {
  skeletons_->guard_programs = load_guard(config, pins);
  if (self.resume == config::Resume::kRepair)
    missing_ = "resume = \"repair\" asks for none";
  else
    skeletons_->resume_programs = load_resume(
        bpf_map__max_entries(skeletons_->guard_programs->maps.tombstones), &pins, missing_);
  const auto sample = [](void* self_pointer, void* data, std::size_t size) -> int {
    abi::node_event event{};
    if (size < sizeof event) return 0;
    std::memcpy(&event, data, sizeof event);
    static_cast<Programs*>(self_pointer)->waiting_.push_back(event);
    return 0;
  };
  events_.reset(ring_buffer__new(bpf_map__fd(skeletons_->guard_programs->maps.node_events), sample,
                                 this, nullptr));
  if (!events_) refuse("open the event buffer", -errno);
}

Programs::~Programs() = default;

bool Programs::has_kernel_resume() const noexcept { return skeletons_->resume_programs != nullptr; }

bool Programs::look_at_syncookies() {
  const bool on = sys::read_sysctl("net.ipv4.tcp_syncookies") != "0";
  if (on == syncookies_) return false;
  const int map = bpf_map__fd(skeletons_->guard_programs->maps.node_settings);
  auto settings = sys::map_lookup<abi::node_settings>(map, std::uint32_t{0}).value();
  settings.no_resume = !on;
  sys::map_update(map, std::uint32_t{0}, settings);
  syncookies_ = on;
  return true;
}

void Programs::configure(const control::Secret& secret, int tun) {
  abi::node_settings settings{};
  settings.vpa4_block = config::vpa4_block(config_, self_.id).address.raw();
  settings.vpa6_block = config::vpa6_block(config_, self_.id).address.raw();
  settings.tun_ifindex = static_cast<std::uint32_t>(tun);
  settings.node = self_.id;
  settings.control_port = htons(config_.control_port);
  settings.role = abi::NODE_SERVER;
  settings.no_resume = !syncookies_;
  if (has_kernel_resume()) {
    const auto& maps = skeletons_->resume_programs->maps;
    // All of them: the map may be that of a run when there were other nodes. A ring of zeros is no key.
    for (std::uint32_t id = 0; id < abi::MAX_NODES; ++id) {
      const config::Node* node = config_.find_node(static_cast<config::NodeId>(id));
      sys::map_update(bpf_map__fd(maps.pair_keys), id,
                      node != nullptr ? secret.pair_keys(node->id, self_.id) : abi::key_ring{});
    }
    const int ports = bpf_map__fd(maps.user_ports);
    sys::map_for_each<std::uint32_t, std::uint32_t>(
        ports, [&](std::uint32_t port, std::uint32_t) { sys::map_delete(ports, port); });
    for (const config::Pool& pool : config_.pools)
      for (const config::PoolServer& server : pool.servers)
        if (server.node_id == self_.id && !server.handoff.empty())
          sys::map_update(ports, std::uint32_t{server.port}, std::uint32_t{1});
  }
  // Last: from here on the programs act.
  sys::map_update(bpf_map__fd(skeletons_->guard_programs->maps.node_settings), std::uint32_t{0},
                  settings);
}

std::string Programs::attach(int interface, int tun) {
  const auto ingress = sys::TcHook::kIngress;
  if (has_kernel_resume()) {
    const auto& resume_programs = skeletons_->resume_programs->progs;
    sys::attach_tc(tun, ingress, bpf_program__fd(resume_programs.resume_tun), pins_, kTunPin,
                   kWirePriority);
    sys::attach_tc(interface, ingress, bpf_program__fd(resume_programs.resume_wire), pins_,
                   kWirePin, kWirePriority);
  } else {  // a former run may have had it
    sys::detach_tc(interface, ingress, pins_, kWirePin, kWirePriority);
  }
  return sys::attach_tc(interface, ingress,
                        bpf_program__fd(skeletons_->guard_programs->progs.guard), pins_, kGuardPin,
                        kGuardPriority);
}

bool Programs::is_attached(int interface, int tun) const {
  const auto is_there = [&](int device, const bpf_program* program, const char* pin,
                            std::uint32_t priority) {
    return sys::is_tc_attached(device, sys::TcHook::kIngress, bpf_program__fd(program), pins_, pin,
                               priority);
  };
  if (!is_there(interface, skeletons_->guard_programs->progs.guard, kGuardPin, kGuardPriority))
    return false;
  if (!has_kernel_resume()) return true;
  const auto& programs = skeletons_->resume_programs->progs;
  return is_there(interface, programs.resume_wire, kWirePin, kWirePriority) &&
         is_there(tun, programs.resume_tun, kTunPin, kWirePriority);
}

void Programs::detach(int interface, const sys::PinDirectory& pins) {
  sys::detach_tc(interface, sys::TcHook::kIngress, pins, kWirePin, kWirePriority);
  sys::detach_tc(interface, sys::TcHook::kIngress, pins, kGuardPin, kGuardPriority);
}

Tombstones Programs::tombstones() const {
  const guard& skeleton = *skeletons_->guard_programs;
  return {bpf_map__fd(skeleton.maps.tombstones), bpf_program__fd(skeleton.progs.tombstone_change),
          bpf_map__max_entries(skeleton.maps.tombstones)};
}

int Programs::pending_map() const noexcept {
  return has_kernel_resume() ? bpf_map__fd(skeletons_->resume_programs->maps.pending) : -1;
}

std::array<std::uint64_t, abi::NODE_COUNTER_MAX> Programs::counters() const {
  const int map = bpf_map__fd(skeletons_->guard_programs->maps.node_counters);
  std::array<std::uint64_t, abi::NODE_COUNTER_MAX> result{};
  for (std::uint32_t i = 0; i < result.size(); ++i) {
    const auto values = sys::map_lookup_percpu<std::uint64_t>(map, i);
    result[i] = std::accumulate(values.begin(), values.end(), std::uint64_t{0});
  }
  return result;
}

int Programs::events_fd() const noexcept { return ring_buffer__epoll_fd(events_.get()); }

std::vector<abi::node_event> Programs::take_events() {
  sys::check_errno("read the event buffer", ring_buffer__consume(events_.get()));
  return std::exchange(waiting_, {});
}

std::string Programs::probe_kernel_resume() {
  std::string missing;
  load_resume(config::Limits{}.tombstones, nullptr, missing);
  return missing;
}

}  // namespace tcpmig::agent
