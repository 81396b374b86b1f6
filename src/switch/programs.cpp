// SPDX-License-Identifier: MIT
#include "switch/programs.hpp"

#include <bpf/libbpf.h>

#include <cerrno>
#include <system_error>

#include "switch/datapath.hpp"
#include "switch_tc.skel.h"
#include "switch_xdp.skel.h"

namespace tcpmig::steering {
namespace {

constexpr const char* kRoles[] = {"clients", "nodes"};

bpf_object* open_object(config::Datapath datapath) {
  const bool xdp = datapath == config::Datapath::kXdp;
  std::size_t size = 0;
  const void* bytes = xdp ? switch_xdp__elf_bytes(&size) : switch_tc__elf_bytes(&size);
  LIBBPF_OPTS(bpf_object_open_opts, options, .object_name = xdp ? "switch_xdp" : "switch_tc");
  bpf_object* object = bpf_object__open_mem(bytes, size, &options);
  if (object == nullptr)
    throw std::system_error(errno, std::generic_category(), "open the steering programs");
  return object;
}

void resize(bpf_object* object, const char* map_name, std::uint32_t entries) {
  bpf_map* map = bpf_object__find_map_by_name(object, map_name);
  sys::check_errno(std::string("find BPF map ") + map_name, map == nullptr ? -ENOENT : 0);
  sys::check_errno(std::string("size BPF map ") + map_name, bpf_map__set_max_entries(map, entries));
}

void load(bpf_object* object) {
  const int error = bpf_object__load(object);
  if (error == 0) return;
  const bool right = error == -EPERM;
  const std::string what =
      right ? "load the steering programs (it takes root, or CAP_BPF and CAP_NET_ADMIN)"
      : error == -ENOMEM
          ? "load the steering programs (lower limits.flows or limits.affinity)"
          : "this kernel refuses the steering programs (--verbose shows its reasons)";
  throw std::system_error(right || error == -ENOMEM ? -error : EOPNOTSUPP, std::generic_category(),
                          what);
}

}  // namespace

void Programs::Close::operator()(bpf_object* object) const noexcept { bpf_object__close(object); }

Programs::Programs(config::Datapath datapath, const config::Limits& limits,
                   const sys::PinDirectory& pins)
    : datapath_(datapath), object_(open_object(datapath)) {
  resize(object_.get(), "flows", limits.flows);
  resize(object_.get(), "affinity", limits.affinity);
  sys::adopt_pinned_maps(object_.get(), pins);
  load(object_.get());
}

int Programs::program(const std::string& role) const {
  const std::string name = "switch_" + to_string(datapath_) + "_" + role;
  const bpf_program* program = bpf_object__find_program_by_name(object_.get(), name.c_str());
  return sys::check_errno("find BPF program " + name,
                          program == nullptr ? -ENOENT : bpf_program__fd(program));
}

int Programs::map(const std::string& name) const {
  return sys::check_errno("find BPF map " + name,
                          bpf_object__find_map_fd_by_name(object_.get(), name.c_str()));
}

void Programs::pin_maps(const sys::PinDirectory& pins) const { sys::pin_maps(object_.get(), pins); }

void Programs::pin_programs(const sys::PinDirectory& pins) const {
  const auto other =
      datapath_ == config::Datapath::kXdp ? config::Datapath::kTc : config::Datapath::kXdp;
  for (const char* role : kRoles) {
    pins.pin(program(role), program_pin(datapath_, role));
    pins.unpin(program_pin(other, role));
  }
}

std::string program_pin(config::Datapath datapath, const std::string& role) {
  return "program-" + to_string(datapath) + "-" + role;
}

}  // namespace tcpmig::steering
