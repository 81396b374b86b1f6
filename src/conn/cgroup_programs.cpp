// SPDX-License-Identifier: MIT
#include "conn/cgroup_programs.hpp"

#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include <filesystem>
#include <map>
#include <mutex>
#include <stdexcept>

#include "conn/dump.hpp"
#include "dump.skel.h"
#include "sys/bpf.hpp"
#include "sys/check.hpp"
#include "window.skel.h"

namespace tcpmig::conn {
namespace {

std::mutex programs_mutex;

bpf_link* attach(bpf_program* program, int cgroup_fd, const char* what) {
  bpf_link* link = bpf_program__attach_cgroup(program, cgroup_fd);
  if (link == nullptr) sys::check(what, -1);
  return link;
}

void load(dump* skeleton, bool by_copy) {
  if (skeleton == nullptr) sys::check("open the dump program", -1);
  if (!std::filesystem::exists("/sys/kernel/btf/vmlinux"))
    throw std::runtime_error(
        "the kernel has no type information (/sys/kernel/btf/vmlinux, CONFIG_DEBUG_INFO_BTF)");
  skeleton->rodata->copies = by_copy;
  sys::check_errno("load the dump program", dump__load(skeleton));
}

bool answers() {
  const sys::UniqueFd probe(sys::check("socket", ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)));
  return dump_by_program(probe.get()).has_value();
}

}  // namespace

bool dumps_by_copy() { return !sys::kfunc_missing("bpf_rdonly_cast").empty(); }

void CgroupPrograms::Destroy::operator()(dump* skeleton) const noexcept { dump__destroy(skeleton); }
void CgroupPrograms::Destroy::operator()(window* skeleton) const noexcept {
  window__destroy(skeleton);
}

std::shared_ptr<CgroupPrograms> CgroupPrograms::of_process(const std::string& name) {
  static std::map<std::string, std::weak_ptr<CgroupPrograms>> by_name;
  const std::lock_guard guard(programs_mutex);
  auto programs = by_name[name].lock();
  if (!programs) by_name[name] = programs = std::make_shared<CgroupPrograms>(name);
  return programs;
}

CgroupPrograms::CgroupPrograms(const std::string& name) : cgroup_(name) {}

void CgroupPrograms::attach_dump(bool by_copy) {
  const std::lock_guard guard(programs_mutex);
  if (dump_) return;
  std::unique_ptr<dump, Destroy> skeleton(dump__open());
  load(skeleton.get(), by_copy);
  skeleton->links.dump_socket =
      attach(skeleton->progs.dump_socket, cgroup_.fd(), "attach the dump program");
  if (!answers())
    throw std::runtime_error("the dump program is not asked for sockets of this cgroup");
  dump_ = std::move(skeleton);
}

void CgroupPrograms::attach_window() {
  const std::lock_guard guard(programs_mutex);
  if (window_) return;
  std::unique_ptr<window, Destroy> skeleton(window__open_and_load());
  if (!skeleton) sys::check("load the window program", -1);
  skeleton->links.keep_window_small =
      attach(skeleton->progs.keep_window_small, cgroup_.fd(), "attach the window program");
  window_ = std::move(skeleton);
}

}  // namespace tcpmig::conn
