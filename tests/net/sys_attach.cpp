// SPDX-License-Identifier: MIT
// Programs on tc and XDP hooks. A program that answers SHOT or DROP shows by silence that it runs.
#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <linux/filter.h>
#include <linux/if_link.h>
#include <linux/pkt_cls.h>
#include <linux/seccomp.h>
#include <sys/prctl.h>
#include <sys/syscall.h>

#include <iostream>
#include <thread>

#include "catch.hpp"
#include "sys/bpf_clsact.hpp"
#include "sys/check.hpp"
#include "sys/uapi_compat.h"
#include "sys_support.hpp"

namespace sys = tcpmig::sys;
using namespace sys_test;
using Catch::Matchers::Contains;
using sys::TcHook;

namespace {

constexpr int kNext = -1;  // TCX: the next program decides
constexpr std::uint32_t kPriority = 20;

/// The right end of a pair, the calling thread in it.
struct Bench {
  /// From here on the neighbours know each other: a program that drops would drop ARP too.
  Bench() {
    REQUIRE(holds_within(std::chrono::seconds(5), [&] { return pair.delivers(); }));
  }
  Pair pair;
  sys::EnterNetns inside = pair.right.enter();
  Pins pins;
  int ifindex = pair.right_index;

  std::string attach(const UniqueFd& program, TcHook hook = TcHook::kIngress) const {
    return sys::attach_tc(ifindex, hook, program.get(), pins, "link", kPriority);
  }
  void detach(TcHook hook = TcHook::kIngress) const {
    sys::detach_tc(ifindex, hook, pins, "link", kPriority);
  }
  [[nodiscard]] bool attached(const UniqueFd& program, TcHook hook = TcHook::kIngress) const {
    return sys::is_tc_attached(ifindex, hook, program.get(), pins, "link", kPriority);
  }
};

/// A foreign program on TCX ingress, for as long as the descriptor is open; none where the kernel
/// has no TCX.
UniqueFd foreign_tcx(int ifindex, const UniqueFd& program) {
  tcpmig_bpf_link_create_tcx attributes{};
  attributes.prog_fd = static_cast<std::uint32_t>(program.get());
  attributes.target_ifindex = static_cast<std::uint32_t>(ifindex);
  attributes.attach_type = TCPMIG_BPF_TCX_INGRESS;
  return UniqueFd(
      static_cast<int>(::syscall(SYS_bpf, BPF_LINK_CREATE, &attributes, sizeof attributes)));
}

bool no_tcx_here(int ifindex) {
  if (foreign_tcx(ifindex, load_tc(kNext))) return false;
  std::cout << "SKIPPED: no TCX in this kernel\n";
  return true;
}

/// From now on BPF_LINK_CREATE says EINVAL in this thread, as on a kernel before TCX.
void forbid_link_create() {
  sock_filter code[] = {
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, nr)),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, __NR_bpf, 0, 3),
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, args)),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, BPF_LINK_CREATE, 0, 1),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EINVAL),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
  };
  const sock_fprog program{.len = static_cast<unsigned short>(std::size(code)), .filter = code};
  sys::check("prctl PR_SET_NO_NEW_PRIVS", ::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0));
  sys::check("prctl PR_SET_SECCOMP", ::prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program));
}

/// Runs `work` in a thread of this namespace to which the kernel looks like one without TCX.
void without_tcx(const std::function<void()>& work) {
  std::exception_ptr failure;
  std::thread([&] {
    try {
      forbid_link_create();
      work();
    } catch (...) {
      failure = std::current_exception();
    }
  }).join();
  if (failure) std::rethrow_exception(failure);
}

bpf_tc_hook hook_on(int ifindex, bpf_tc_attach_point point) {
  bpf_tc_hook hook{};
  hook.sz = sizeof hook;
  hook.ifindex = ifindex;
  hook.attach_point = point;
  return hook;
}

bpf_tc_opts filter_of(const UniqueFd& program, std::uint32_t priority) {
  bpf_tc_opts filter{};
  filter.sz = sizeof filter;
  filter.prog_fd = program.get();
  filter.priority = priority;
  return filter;
}

bool has_clsact(int ifindex) {
  bpf_tc_hook hook = hook_on(ifindex, BPF_TC_INGRESS);
  const int made = bpf_tc_hook_create(&hook);
  if (made == -EEXIST) return true;
  hook.attach_point = static_cast<bpf_tc_attach_point>(BPF_TC_INGRESS | BPF_TC_EGRESS);
  bpf_tc_hook_destroy(&hook);
  return false;
}

}  // namespace

TEST_CASE("tcx: attached, updated in place, detached") {
  if (cannot_run_here()) return;
  const Bench bench;
  if (no_tcx_here(bench.ifindex)) return;
  const UniqueFd pass = load_tc(kNext);
  const UniqueFd drop = load_tc(TC_ACT_SHOT);
  CHECK(bench.pair.delivers());
  CHECK(bench.attach(pass) == "tcx");
  CHECK(bench.attached(pass));
  CHECK_FALSE(bench.attached(drop));
  CHECK_FALSE(bench.attached(pass, TcHook::kEgress));
  CHECK(bench.pair.delivers());
  CHECK(bench.attach(drop) == "tcx");  // the same link: the pin stays
  CHECK(bench.attached(drop));
  CHECK_FALSE(bench.attached(pass));
  CHECK_FALSE(bench.pair.delivers());
  CHECK(bench.attach(drop) == "tcx");  // again the same
  bench.detach();
  CHECK_FALSE(bench.attached(drop));
  CHECK(bench.pair.delivers());  // at once: the link was detached, not only unpinned
  CHECK_NOTHROW(bench.detach());
  CHECK_FALSE(has_clsact(bench.ifindex));
}

TEST_CASE("tcx: outlives its maker, and a held link is detached all the same") {
  if (cannot_run_here()) return;
  const Bench bench;
  if (no_tcx_here(bench.ifindex)) return;
  bench.attach(load_tc(TC_ACT_SHOT));
  CHECK_FALSE(bench.pair.delivers());
  const auto held = bench.pins.directory().open("link");
  bench.detach();
  CHECK(bench.pair.delivers());
}

TEST_CASE("tcx: both hooks at once") {
  if (cannot_run_here()) return;
  const Bench bench;
  if (no_tcx_here(bench.ifindex)) return;
  const UniqueFd pass = load_tc(kNext);
  const UniqueFd drop = load_tc(TC_ACT_SHOT);
  bench.attach(pass);
  sys::attach_tc(bench.ifindex, TcHook::kEgress, drop.get(), bench.pins, "out", kPriority);
  CHECK(sys::is_tc_attached(bench.ifindex, TcHook::kEgress, drop.get(), bench.pins, "out",
                            kPriority));
  bench.detach();
  CHECK(sys::is_tc_attached(bench.ifindex, TcHook::kEgress, drop.get(), bench.pins, "out",
                            kPriority));
  sys::detach_tc(bench.ifindex, TcHook::kEgress, bench.pins, "out", kPriority);
  CHECK(bench.pair.delivers());
}

TEST_CASE("tcx: a pin whose device has gone is replaced") {
  if (cannot_run_here()) return;
  const Bench bench;
  if (no_tcx_here(bench.ifindex)) return;
  sys::Netlink netlink;
  netlink.create_veth("tmt0", "tmt1", -1);
  const UniqueFd drop = load_tc(TC_ACT_SHOT);
  sys::attach_tc(netlink.find_link("tmt0")->index, TcHook::kIngress, drop.get(), bench.pins, "link",
                 kPriority);
  netlink.remove_link("tmt0");
  CHECK_FALSE(bench.attached(drop));
  CHECK(bench.attach(drop) == "tcx");
  CHECK_FALSE(bench.pair.delivers());
  CHECK_THROWS_WITH(
      sys::attach_tc(9999, TcHook::kIngress, drop.get(), bench.pins, "none", kPriority),
      Contains("9999"));
}

TEST_CASE("tcx: a foreign program stays") {
  if (cannot_run_here()) return;
  const Bench bench;
  if (no_tcx_here(bench.ifindex)) return;
  const UniqueFd ours = load_tc(kNext, "ours");
  const UniqueFd foreign = load_tc(TC_ACT_SHOT, "foreign");
  const UniqueFd link = foreign_tcx(bench.ifindex, foreign);
  CHECK_FALSE(bench.pair.delivers());
  CHECK(bench.attach(ours) == "tcx");
  bench.detach();
  CHECK_FALSE(bench.pair.delivers());
}

TEST_CASE("clsact: where there is no TCX, attached, updated, detached, the qdisc gone") {
  if (cannot_run_here()) return;
  const Bench bench;
  const UniqueFd pass = load_tc(TC_ACT_OK);
  const UniqueFd drop = load_tc(TC_ACT_SHOT);
  without_tcx([&] {
    CHECK(bench.attach(pass) == "clsact");
    CHECK(bench.attached(pass));
    CHECK(bench.attach(drop) == "clsact");
    CHECK(bench.attached(drop));
    CHECK_FALSE(bench.attached(pass));
  });
  CHECK_FALSE(bench.pair.delivers());
  bench.detach();
  CHECK_FALSE(bench.attached(drop));
  CHECK(bench.pair.delivers());
  CHECK_FALSE(has_clsact(bench.ifindex));
  CHECK_NOTHROW(bench.detach());
}

TEST_CASE("clsact: the qdisc stays while the other hook needs it") {
  if (cannot_run_here()) return;
  const Bench bench;
  const UniqueFd drop = load_tc(TC_ACT_SHOT);
  sys::attach_clsact(bench.ifindex, TcHook::kIngress, drop.get(), bench.pins, kPriority);
  sys::attach_clsact(bench.ifindex, TcHook::kEgress, drop.get(), bench.pins, kPriority);
  bench.detach(TcHook::kIngress);
  CHECK(has_clsact(bench.ifindex));
  CHECK(bench.attached(drop, TcHook::kEgress));
  bench.detach(TcHook::kEgress);
  CHECK_FALSE(has_clsact(bench.ifindex));
}

TEST_CASE("clsact: a foreign qdisc and a foreign filter stay") {
  if (cannot_run_here()) return;
  const Bench bench;
  const UniqueFd ours = load_tc(TC_ACT_UNSPEC);
  const UniqueFd foreign = load_tc(TC_ACT_SHOT);
  SECTION("an empty qdisc that was there before") {
    REQUIRE(std::system("tc qdisc add dev r0 clsact") == 0);
    sys::attach_clsact(bench.ifindex, TcHook::kIngress, ours.get(), bench.pins, kPriority);
    bench.detach();
    CHECK(has_clsact(bench.ifindex));
  }
  SECTION("a filter that came later into ours") {
    sys::attach_clsact(bench.ifindex, TcHook::kIngress, ours.get(), bench.pins, kPriority);
    bpf_tc_hook egress = hook_on(bench.ifindex, BPF_TC_EGRESS);
    bpf_tc_opts filter = filter_of(foreign, 5);
    REQUIRE(bpf_tc_attach(&egress, &filter) == 0);
    bench.detach();
    filter.prog_fd = 0;
    filter.prog_id = 0;
    CHECK(bpf_tc_query(&egress, &filter) == 0);
  }
  SECTION("a filter of the same priority") {
    bpf_tc_hook hook = hook_on(bench.ifindex, BPF_TC_INGRESS);
    REQUIRE(bpf_tc_hook_create(&hook) == 0);
    bpf_tc_opts filter = filter_of(foreign, kPriority);
    REQUIRE(bpf_tc_attach(&hook, &filter) == 0);
    sys::attach_clsact(bench.ifindex, TcHook::kIngress, ours.get(), bench.pins, kPriority);
    bench.detach();
    CHECK_FALSE(bench.pair.delivers());
  }
}

TEST_CASE("clsact: a foreign filter with our very handle is neither replaced nor removed") {
  if (cannot_run_here()) return;
  const Bench bench;
  const UniqueFd ours = load_tc(TC_ACT_OK);
  const UniqueFd foreign = load_tc(TC_ACT_SHOT, "foreign");
  bpf_tc_hook hook = hook_on(bench.ifindex, BPF_TC_INGRESS);
  REQUIRE(bpf_tc_hook_create(&hook) == 0);
  bpf_tc_opts filter = filter_of(foreign, kPriority);
  filter.handle = 0x7463;
  REQUIRE(bpf_tc_attach(&hook, &filter) == 0);
  CHECK_THROWS_WITH(
      sys::attach_clsact(bench.ifindex, TcHook::kIngress, ours.get(), bench.pins, kPriority),
      Contains("foreign"));
  CHECK_FALSE(bench.attached(foreign));
  bench.detach();
  CHECK_FALSE(bench.pair.delivers());
}

TEST_CASE("clsact: detaching where nothing ever was is no error") {
  if (cannot_run_here()) return;
  const Bench bench;
  CHECK_NOTHROW(bench.detach());
  CHECK_NOTHROW(sys::detach_tc(9999, TcHook::kIngress, bench.pins, "link", kPriority));
  CHECK_FALSE(bench.attached(load_tc(TC_ACT_OK)));
}

TEST_CASE("xdp: native on a veth: attached, updated in place, detached") {
  if (cannot_run_here()) return;
  const Bench bench;
  const UniqueFd pass = load_xdp(XDP_PASS);
  const UniqueFd drop = load_xdp(XDP_DROP);
  sys::attach_xdp(bench.ifindex, pass.get(), bench.pins, "xdp");
  CHECK(bench.pair.delivers());
  sys::attach_xdp(bench.ifindex, drop.get(), bench.pins, "xdp");
  CHECK_FALSE(bench.pair.delivers());
  bpf_xdp_query_opts query{};
  query.sz = sizeof query;
  REQUIRE(bpf_xdp_query(bench.ifindex, 0, &query) == 0);
  CHECK(query.attach_mode == XDP_ATTACHED_DRV);
  sys::detach_xdp(bench.pins, "xdp");
  CHECK(bench.pair.delivers());
  CHECK_NOTHROW(sys::detach_xdp(bench.pins, "xdp"));
}

TEST_CASE("xdp: a foreign program is named and stays, and a device without native XDP is named") {
  if (cannot_run_here()) return;
  const Bench bench;
  const UniqueFd ours = load_xdp(XDP_PASS);
  const UniqueFd foreign = load_xdp(XDP_DROP);
  REQUIRE(bpf_xdp_attach(bench.ifindex, foreign.get(), XDP_FLAGS_DRV_MODE, nullptr) == 0);
  CHECK_THROWS_WITH(sys::attach_xdp(bench.ifindex, ours.get(), bench.pins, "xdp"),
                    Contains("another XDP program"));
  sys::detach_xdp(bench.pins, "xdp");
  CHECK_FALSE(bench.pair.delivers());
  CHECK_THROWS_WITH(sys::attach_xdp(1, ours.get(), bench.pins, "lo"), Contains("no native XDP"));
}
