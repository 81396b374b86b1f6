// SPDX-License-Identifier: MIT
// By our own netlink, not libbpf's bpf_tc_*: those write the kernel's words to stderr by
// themselves, also where we only look.
#include "sys/bpf_clsact.hpp"

#include <arpa/inet.h>
#include <linux/if_ether.h>
#include <linux/pkt_cls.h>
#include <linux/pkt_sched.h>
#include <linux/rtnetlink.h>

#include <system_error>

#include "sys/netlink_message.hpp"

namespace tcpmig::sys {
namespace {

constexpr std::uint32_t kHandle = 0x7463;  // "tc"
constexpr const char* kName = "tcpmig";

std::uint32_t parent_of(TcHook hook) {
  return TC_H_MAKE(TC_H_CLSACT, hook == TcHook::kIngress ? TC_H_MIN_INGRESS : TC_H_MIN_EGRESS);
}

std::string place(int ifindex) { return "clsact of link " + std::to_string(ifindex); }

tcmsg& header_of(NetlinkRequest& request, int ifindex, std::uint32_t parent) {
  auto& header = request.header<tcmsg>();
  header.tcm_family = AF_UNSPEC;
  header.tcm_ifindex = ifindex;
  header.tcm_parent = parent;
  return header;
}

NetlinkOutcome ask(NetlinkRequest& request,
                   const std::function<void(const nlmsghdr&)>& visit = {}) {
  return exchange(open_netlink(NETLINK_ROUTE).get(), request, 1, visit);
}

// ---- the qdisc

std::filesystem::path mark_of(int ifindex, const PinDirectory& pins) {
  return pins.path() / ("clsact_" + std::to_string(ifindex));
}

void put_qdisc(NetlinkRequest& request, int ifindex) {
  header_of(request, ifindex, TC_H_CLSACT).tcm_handle = TC_H_MAKE(TC_H_CLSACT, 0);
  request.put_string(TCA_KIND, "clsact");
}

NetlinkOutcome add_qdisc(int ifindex) {
  NetlinkRequest request(RTM_NEWQDISC, NLM_F_CREATE | NLM_F_EXCL);
  put_qdisc(request, ifindex);
  return ask(request);
}

void make_qdisc(int ifindex, const PinDirectory& pins) {
  const std::filesystem::path mark = mark_of(ifindex, pins);
  const bool newly_marked = std::filesystem::create_directory(mark);
  const NetlinkOutcome outcome = add_qdisc(ifindex);
  if (outcome.error != 0 && newly_marked) std::filesystem::remove(mark);
  succeeded("add " + place(ifindex), outcome, {EEXIST});
}

bool has_filters(int ifindex, TcHook hook) {
  NetlinkRequest request(RTM_GETTFILTER, NLM_F_DUMP);
  header_of(request, ifindex, parent_of(hook));
  std::uint32_t sequence = 0;
  const auto found =
      dump<int>(open_netlink(NETLINK_ROUTE).get(), "list filters of " + place(ifindex), request,
                sequence, [](const nlmsghdr&) { return std::optional(1); });
  return !found.empty();
}

void remove_qdisc_if_ours(int ifindex, const PinDirectory& pins) {
  const std::filesystem::path mark = mark_of(ifindex, pins);
  if (!std::filesystem::exists(mark)) return;
  if (has_filters(ifindex, TcHook::kIngress) || has_filters(ifindex, TcHook::kEgress)) return;
  NetlinkRequest request(RTM_DELQDISC, 0);
  put_qdisc(request, ifindex);
  succeeded("remove " + place(ifindex), ask(request),
            {ENOENT, EINVAL, ENODEV});  // gone already, with its link perhaps
  std::filesystem::remove(mark);
}

// ---- the filter

void put_filter(NetlinkRequest& request, int ifindex, TcHook hook, std::uint32_t priority) {
  tcmsg& header = header_of(request, ifindex, parent_of(hook));
  header.tcm_handle = kHandle;
  header.tcm_info = TC_H_MAKE(priority << 16, htons(ETH_P_ALL));
  request.put_string(TCA_KIND, "bpf");
}

struct Filter {
  std::uint32_t program = 0;
  std::string name;
};

Filter parse_filter(const nlmsghdr& message) {
  Filter filter;
  for_each_attribute(message, sizeof(tcmsg), [&](int type, const nlattr& options) {
    if (type != TCA_OPTIONS) return;
    for_each_nested(options, [&](int inner, const nlattr& attribute) {
      if (inner == TCA_BPF_ID) filter.program = attribute_u32(attribute);
      if (inner == TCA_BPF_NAME) filter.name = attribute_string(attribute);
    });
  });
  return filter;
}

/// What stands under our handle and this priority.
std::optional<Filter> find_filter(int ifindex, TcHook hook, std::uint32_t priority) {
  NetlinkRequest request(RTM_GETTFILTER, 0);
  put_filter(request, ifindex, hook, priority);
  std::optional<Filter> found;
  const auto outcome =
      ask(request, [&](const nlmsghdr& message) { found = parse_filter(message); });
  // no filter; no qdisc, or a filter of another kind; no link
  succeeded("look at " + place(ifindex), outcome, {ENOENT, EINVAL, ENODEV});
  return found;
}

void set_filter(int ifindex, TcHook hook, int prog_fd, std::uint32_t priority,
                const std::string& what) {
  NetlinkRequest request(RTM_NEWTFILTER, NLM_F_CREATE);  // without EXCL: replaces ours in place
  put_filter(request, ifindex, hook, priority);
  request.nest(TCA_OPTIONS, [&] {
    request.put_u32(TCA_BPF_FD, static_cast<std::uint32_t>(prog_fd));
    request.put_string(TCA_BPF_NAME, kName);
    request.put_u32(TCA_BPF_FLAGS, TCA_BPF_FLAG_ACT_DIRECT);
  });
  succeeded(what, ask(request));
}

}  // namespace

void attach_clsact(int ifindex, TcHook hook, int prog_fd, const PinDirectory& pins,
                   std::uint32_t priority) {
  const std::string what = "attach a program to " + place(ifindex);
  if (const auto there = find_filter(ifindex, hook, priority); there && there->name != kName)
    throw std::system_error(EEXIST, std::generic_category(),
                            what + ": a foreign filter has our handle and priority");
  make_qdisc(ifindex, pins);
  set_filter(ifindex, hook, prog_fd, priority, what);
}

void attach_clsact_unrecorded(int ifindex, TcHook hook, int prog_fd, std::uint32_t priority) {
  succeeded("add " + place(ifindex), add_qdisc(ifindex), {EEXIST});
  set_filter(ifindex, hook, prog_fd, priority, "attach a program to " + place(ifindex));
}

void detach_clsact(int ifindex, TcHook hook, const PinDirectory& pins, std::uint32_t priority) {
  if (clsact_program(ifindex, hook, priority) != 0) {
    NetlinkRequest request(RTM_DELTFILTER, 0);
    put_filter(request, ifindex, hook, priority);
    succeeded("detach the program from " + place(ifindex), ask(request), {ENOENT, ENODEV});
  }
  remove_qdisc_if_ours(ifindex, pins);
}

std::uint32_t clsact_program(int ifindex, TcHook hook, std::uint32_t priority) {
  const auto there = find_filter(ifindex, hook, priority);
  return there && there->name == kName ? there->program : 0;
}

}  // namespace tcpmig::sys
