// SPDX-License-Identifier: MIT
#include "sys/bpf_clsact.hpp"

#include <bpf/libbpf.h>
#include <linux/pkt_sched.h>
#include <linux/rtnetlink.h>

#include "sys/check.hpp"
#include "sys/netlink_message.hpp"

namespace tcpmig::sys {
namespace {

constexpr std::uint32_t kHandle = 0x7463;  // "tc"

bpf_tc_hook hook_on(int ifindex, TcHook hook) {
  bpf_tc_hook result{};
  result.sz = sizeof result;
  result.ifindex = ifindex;
  result.attach_point = hook == TcHook::kIngress ? BPF_TC_INGRESS : BPF_TC_EGRESS;
  return result;
}

bpf_tc_opts our_filter(std::uint32_t priority) {
  bpf_tc_opts result{};
  result.sz = sizeof result;
  result.handle = kHandle;
  result.priority = priority;
  return result;
}

std::filesystem::path mark_of(int ifindex, const PinDirectory& pins) {
  return pins.path() / ("clsact_" + std::to_string(ifindex));
}

void make_qdisc(int ifindex, const PinDirectory& pins) {
  const std::filesystem::path mark = mark_of(ifindex, pins);
  const bool newly_marked = std::filesystem::create_directory(mark);
  bpf_tc_hook both = hook_on(ifindex, TcHook::kIngress);
  const int result = bpf_tc_hook_create(&both);
  if (result < 0 && newly_marked) std::filesystem::remove(mark);
  if (result != -EEXIST) check_errno("add clsact to link " + std::to_string(ifindex), result);
}

bool has_filters(int ifindex, std::uint32_t hook_minor) {
  const UniqueFd fd = open_netlink(NETLINK_ROUTE);
  NetlinkRequest request(RTM_GETTFILTER, NLM_F_DUMP);
  auto& header = request.header<tcmsg>();
  header.tcm_family = AF_UNSPEC;
  header.tcm_ifindex = ifindex;
  header.tcm_parent = TC_H_MAKE(TC_H_CLSACT, hook_minor);
  std::uint32_t sequence = 0;
  const auto found = dump<int>(fd.get(), "list tc filters", request, sequence,
                               [](const nlmsghdr&) { return std::optional(1); });
  return !found.empty();
}

void remove_qdisc_if_ours(int ifindex, const PinDirectory& pins) {
  const std::filesystem::path mark = mark_of(ifindex, pins);
  if (!std::filesystem::exists(mark)) return;
  if (has_filters(ifindex, TC_H_MIN_INGRESS) || has_filters(ifindex, TC_H_MIN_EGRESS)) return;
  bpf_tc_hook both = hook_on(ifindex, TcHook::kIngress);
  both.attach_point = static_cast<bpf_tc_attach_point>(BPF_TC_INGRESS | BPF_TC_EGRESS);
  const int result = bpf_tc_hook_destroy(&both);
  if (result != -ENOENT && result != -EINVAL &&
      result != -ENODEV)  // gone already, with its link perhaps
    check_errno("remove clsact from link " + std::to_string(ifindex), result);
  std::filesystem::remove(mark);
}

}  // namespace

void attach_clsact(int ifindex, TcHook hook, int prog_fd, const PinDirectory& pins,
                   std::uint32_t priority) {
  make_qdisc(ifindex, pins);
  const bpf_tc_hook where = hook_on(ifindex, hook);
  bpf_tc_opts filter = our_filter(priority);
  filter.prog_fd = prog_fd;
  filter.flags = BPF_TC_F_REPLACE;
  check_errno("attach a program to clsact of link " + std::to_string(ifindex),
              bpf_tc_attach(&where, &filter));
}

void detach_clsact(int ifindex, TcHook hook, const PinDirectory& pins, std::uint32_t priority) {
  if (clsact_program(ifindex, hook, priority) != 0) {
    const bpf_tc_hook where = hook_on(ifindex, hook);
    const bpf_tc_opts filter = our_filter(priority);
    check_errno("detach the program from clsact of link " + std::to_string(ifindex),
                bpf_tc_detach(&where, &filter));
  }
  remove_qdisc_if_ours(ifindex, pins);
}

std::uint32_t clsact_program(int ifindex, TcHook hook, std::uint32_t priority) {
  const bpf_tc_hook where = hook_on(ifindex, hook);
  bpf_tc_opts filter = our_filter(priority);
  const int result = bpf_tc_query(&where, &filter);
  // no filter, no qdisc, no link
  if (result == -ENOENT || result == -EINVAL || result == -ENODEV) return 0;
  check_errno("look at clsact of link " + std::to_string(ifindex), result);
  return filter.prog_id;
}

}  // namespace tcpmig::sys
