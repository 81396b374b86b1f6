// SPDX-License-Identifier: MIT
#include <bpf/bpf.h>
#include <linux/if_link.h>
#include <sys/syscall.h>

#include <cstring>

#include "sys/bpf.hpp"
#include "sys/bpf_clsact.hpp"
#include "sys/check.hpp"
#include "sys/uapi_compat.h"

namespace tcpmig::sys {
namespace {

using LinkInfo = tcpmig_bpf_link_info_tcx;

LinkInfo info_of(int link_fd) {
  LinkInfo info{};
  std::uint32_t length = sizeof info;
  check_errno("ask for BPF link info", bpf_obj_get_info_by_fd(link_fd, &info, &length));
  return info;
}

std::uint32_t program_id(int prog_fd) {
  bpf_prog_info info{};
  std::uint32_t length = sizeof info;
  check_errno("ask for BPF program info", bpf_obj_get_info_by_fd(prog_fd, &info, &length));
  return info.id;
}

/// What a pinned link must be attached to, to be the one meant. (A link whose device has gone says
/// ifindex 0.)
struct Place {
  std::uint32_t link_type;
  int ifindex;
  std::uint32_t attach_type = 0;  // TCX only
  [[nodiscard]] bool matches(const LinkInfo& info) const {
    return info.type == link_type && info.ifindex == static_cast<std::uint32_t>(ifindex) &&
           (link_type != TCPMIG_BPF_LINK_TYPE_TCX || info.attach_type == attach_type);
  }
};

Place tcx_place(int ifindex, TcHook hook) {
  return {TCPMIG_BPF_LINK_TYPE_TCX, ifindex,
          hook == TcHook::kIngress ? TCPMIG_BPF_TCX_INGRESS : TCPMIG_BPF_TCX_EGRESS};
}

/// BPF_LINK_DETACH first: what only loses its pin is freed later, by a worker of the kernel, and
/// runs until then.
bool remove_link(const PinDirectory& pins, const std::string& pin_name) {
  const auto link = pins.open(pin_name);
  if (!link) return false;
  bpf_link_detach(link->get());
  return pins.unpin(pin_name);
}

/// True: the pinned link hangs where it should, and runs this program now. A stale one is removed.
bool update_link(const Place& place, int prog_fd, const PinDirectory& pins,
                 const std::string& pin_name) {
  const auto link = pins.open(pin_name);
  if (!link) return false;
  if (!place.matches(info_of(link->get()))) {
    remove_link(pins, pin_name);
    return false;
  }
  check_errno("update BPF link " + pin_name, bpf_link_update(link->get(), prog_fd, nullptr));
  return true;
}

/// By the bare system call: libbpf 1.1 does not know TCX. Returns a descriptor or -errno.
int create_tcx_link(const Place& place, int prog_fd) {
  tcpmig_bpf_link_create_tcx attributes{};
  attributes.prog_fd = static_cast<std::uint32_t>(prog_fd);
  attributes.target_ifindex = static_cast<std::uint32_t>(place.ifindex);
  attributes.attach_type = place.attach_type;
  const long fd = ::syscall(SYS_bpf, BPF_LINK_CREATE, &attributes, sizeof attributes);
  return fd < 0 ? -errno : static_cast<int>(fd);
}

[[noreturn]] void explain_xdp(int ifindex, int error) {
  std::string what = "attach XDP to link " + std::to_string(ifindex);
  if (error == EOPNOTSUPP) what += ": its driver has no native XDP";
  if (error == EBUSY || error == EEXIST)
    what += ": another XDP program is attached, and is left alone";
  throw std::system_error(error, std::generic_category(), what);
}

}  // namespace

UniqueFd link_tc(int ifindex, TcHook hook, int prog_fd) {
  const int created = create_tcx_link(tcx_place(ifindex, hook), prog_fd);
  if (created == -EINVAL) return {};
  return UniqueFd(
      check_errno("attach a program to tcx of link " + std::to_string(ifindex), created));
}

std::string attach_tc(int ifindex, TcHook hook, int prog_fd, const PinDirectory& pins,
                      const std::string& pin_name, std::uint32_t priority) {
  if (update_link(tcx_place(ifindex, hook), prog_fd, pins, pin_name)) return "tcx";
  const UniqueFd link = link_tc(ifindex, hook, prog_fd);
  if (!link) {  // a kernel without TCX (or a program that clsact will not take either)
    attach_clsact(ifindex, hook, prog_fd, pins, priority);
    return "clsact";
  }
  pins.pin(link.get(), pin_name);
  return "tcx";
}

void detach_tc(int ifindex, TcHook hook, const PinDirectory& pins, const std::string& pin_name,
               std::uint32_t priority) {
  remove_link(pins, pin_name);
  detach_clsact(ifindex, hook, pins, priority);
}

bool is_tc_attached(int ifindex, TcHook hook, int prog_fd, const PinDirectory& pins,
                    const std::string& pin_name, std::uint32_t priority) {
  const std::uint32_t wanted = program_id(prog_fd);
  if (const auto link = pins.open(pin_name)) {
    const LinkInfo info = info_of(link->get());
    return tcx_place(ifindex, hook).matches(info) && info.prog_id == wanted;
  }
  return clsact_program(ifindex, hook, priority) == wanted;
}

UniqueFd link_xdp(int ifindex, int prog_fd) {
  bpf_link_create_opts options{};
  options.sz = sizeof options;
  options.flags = XDP_FLAGS_DRV_MODE;
  const int created = bpf_link_create(prog_fd, ifindex, BPF_XDP, &options);
  if (created < 0) explain_xdp(ifindex, -created);
  return UniqueFd(created);
}

void attach_xdp(int ifindex, int prog_fd, const PinDirectory& pins, const std::string& pin_name) {
  if (update_link({BPF_LINK_TYPE_XDP, ifindex}, prog_fd, pins, pin_name)) return;
  pins.pin(link_xdp(ifindex, prog_fd).get(), pin_name);
}

void detach_xdp(const PinDirectory& pins, const std::string& pin_name) {
  remove_link(pins, pin_name);
}

}  // namespace tcpmig::sys
