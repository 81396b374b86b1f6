// SPDX-License-Identifier: MIT
// The programs of tcpmig itself, loaded and used.
#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <linux/tcp.h>
#include <netinet/in.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <array>
#include <memory>

#include <tcpmig/freeze.hpp>
#include <tcpmig/resume.hpp>

#include "conn/dump.hpp"
#include "conn/socket_lock.hpp"
#include "conn/socket_option.hpp"
#include "doctor/checks.hpp"
#include "doctor/socket_pair.hpp"
#include "guard.skel.h"
#include "switch_tc.skel.h"
#include "switch_xdp.skel.h"
#include "sys/bpf.hpp"
#include "sys/bpf_clsact.hpp"
#include "sys/check.hpp"
#include "sys/netlink.hpp"

namespace tcpmig::doctor {
namespace {

/// The warnings say why not.
FreezeKit make_kit(bool dump, bool window) {
  const bool cgroup = dump || window;
  return FreezeKit(
      {.use_dump_program = dump,
       .cgroup_name = cgroup ? "tcpmig-doctor-" + std::to_string(::getpid()) : std::string(),
       .keep_window_small = window});
}

std::string reason(const FreezeKit& kit) {
  return kit.warnings().empty() ? "the program is not there" : kit.warnings().front();
}

std::string ring_buffer() {
  const sys::UniqueFd map(sys::check_errno(
      "make a ring buffer", bpf_map_create(BPF_MAP_TYPE_RINGBUF, "doctor", 0, 0, 4096, nullptr)));
  return "BPF_MAP_TYPE_RINGBUF";
}

std::string lock_program() {
  FreezeKit kit = make_kit(false, false);
  require(kit.has_lock(), reason(kit));
  const SocketPair pair;
  conn::SocketLock lock(pair.server.get(), kit.lock_program_fd());
  send_text(pair.client.get(), "data");
  require(bytes_waiting(pair.server.get()) == 0, "a locked socket takes data in");
  std::size_t copied = 0;
  kit.consume_captures([&](const CapturedSegment&) { ++copied; });
  require(copied == 1, "the locked socket's data was not copied");
  return "SO_ATTACH_BPF: a locked socket takes nothing in, and what came was copied";
}

std::string dump_program() {
  const FreezeKit kit = make_kit(true, false);
  require(kit.has_dump_program(), reason(kit));
  const SocketPair pair;
  send_text(pair.client.get(), "data");
  const auto dump = conn::dump_by_program(pair.server.get());
  std::optional<conn::SilentVisit> silence;
  require(
      dump && dump->state.rcv_nxt == conn::dump_by_repair(pair.server.get(), silence).state.rcv_nxt,
      "it says something else than TCP_REPAIR");
  return "one getsockopt() tells the whole state (cgroup/getsockopt)";
}

std::string window_program() {
  const FreezeKit kit = make_kit(false, true);
  require(kit.keeps_window_small(), reason(kit));
  return "sockops: what is acknowledged unread stays small";
}

std::string congestion_program() {
  const ResumeKit kit;
  require(kit.has_congestion_program(),
          kit.warnings().empty() ? "the program is not there" : kit.warnings().front());
  const SocketPair pair;
  constexpr std::uint32_t kWindow = 77;
  Snapshot snapshot;
  snapshot.snd_cwnd = kWindow;
  kit.restore_congestion(pair.server.get(), snapshot);
  const auto info =
      conn::get_option<::tcp_info>(pair.server.get(), IPPROTO_TCP, TCP_INFO, "getsockopt TCP_INFO");
  require(info.tcpi_snd_cwnd == kWindow, "the congestion window is not taken");
  return "struct_ops: a resumed connection goes on with its congestion window";
}

struct Destroy {
  void operator()(guard* skeleton) const { guard__destroy(skeleton); }
  void operator()(switch_tc* skeleton) const { switch_tc__destroy(skeleton); }
  void operator()(switch_xdp* skeleton) const { switch_xdp__destroy(skeleton); }
};

/// `open`, tables of little memory, `load`.
template <typename Skeleton>
std::unique_ptr<Skeleton, Destroy> load(Skeleton* (*open)(), int (*load_it)(Skeleton*)) {
  std::unique_ptr<Skeleton, Destroy> skeleton(open());
  if (!skeleton) sys::check("open the program", -1);
  bpf_map* map = nullptr;
  bpf_object__for_each_map(map, skeleton->obj) {
    constexpr unsigned kMany = 100'000;
    if (bpf_map__max_entries(map) > kMany && bpf_map__type(map) != BPF_MAP_TYPE_RINGBUF)
      bpf_map__set_max_entries(map, kMany);
  }
  sys::check_errno("the kernel refuses the program", load_it(skeleton.get()));
  return skeleton;
}

std::string guard_program() {
  load<guard>(guard__open, guard__load);
  return "the agent's guard loads";
}

/// An end of a pair of veth interfaces that goes with the network namespace.
int veth() {
  sys::Netlink netlink;
  if (!netlink.find_link("doctor0")) {
    netlink.create_veth("doctor0", "doctor1", -1);
    for (const char* name : {"doctor0", "doctor1"}) netlink.set_link(name, true);
  }
  const auto link = netlink.find_link("doctor0");
  require(link.has_value(), "no veth interface was made");
  return link->index;
}

std::string switch_by_tc() {
  const auto skeleton = load<switch_tc>(switch_tc__open, switch_tc__load);
  const int program = bpf_program__fd(skeleton->progs.switch_tc_clients);
  if (sys::link_tc(veth(), sys::TcHook::kIngress, program))
    return "the switch's program loads, and hangs on a TCX link";
  sys::attach_clsact_unrecorded(veth(), sys::TcHook::kIngress, program, 1);
  return "the switch's program loads, and hangs on clsact (no TCX before Linux 6.6)";
}

std::string switch_by_xdp() {
  const auto skeleton = load<switch_xdp>(switch_xdp__open, switch_xdp__load);
  sys::link_xdp(veth(), bpf_program__fd(skeleton->progs.switch_xdp_clients));
  return "the switch's program loads, and hangs on veth, native";
}

/// Before Linux 5.11 the memory of maps counts as locked memory. By the bare system call: libbpf raises the limit by itself.
std::string locked_memory() {
  rlimit before{};
  sys::check("getrlimit", ::getrlimit(RLIMIT_MEMLOCK, &before));
  const rlimit none{.rlim_cur = 0, .rlim_max = before.rlim_max};
  sys::check("setrlimit", ::setrlimit(RLIMIT_MEMLOCK, &none));
  bpf_attr attributes{};
  attributes.map_type = BPF_MAP_TYPE_ARRAY;
  attributes.key_size = attributes.value_size = 4;
  attributes.max_entries = 100'000;
  const sys::UniqueFd map(
      static_cast<int>(::syscall(SYS_bpf, BPF_MAP_CREATE, &attributes, sizeof(attributes))));
  ::setrlimit(RLIMIT_MEMLOCK, &before);
  require(static_cast<bool>(map), "BPF maps count as locked memory (RLIMIT_MEMLOCK)");
  return "BPF maps do not count as locked memory (RLIMIT_MEMLOCK)";
}

constexpr unsigned kMovers = kLibrary | kDispatcher;
constexpr const char* kStock = "use a stock kernel, Linux 5.8 or newer";

constexpr std::array kChecks{
    Check{"locked_memory", kAgent | kDispatcher | kSwitch, kBpf, locked_memory,
          Verdict::kWorksAround, "none for root: the limit is raised", "ulimit -l unlimited"},
    Check{"ring_buffer", kMovers | kAgent, kBpf, ring_buffer, Verdict::kMissing,
          "the agent does not start, and a lock copies nothing", kStock},
    Check{"lock_program", kMovers, kNetwork | kBpf, lock_program, Verdict::kWorksAround,
          "what arrives during a transfer costs the client a retransmission (200 ms)", kStock},
    Check{"dump_program", kMovers, kNetwork | kBpf | kAdmin, dump_program, Verdict::kWorksAround,
          "connections are dumped by the plain recipe, 10 us more each, without ts_recent",
          "use a kernel with CONFIG_DEBUG_INFO_BTF=y, and cgroup v2"},
    Check{"window_program", kDispatcher, kNetwork | kBpf | kAdmin, window_program,
          Verdict::kWorksAround, "connections acknowledge up to 128 KB before they are read",
          "mount cgroup v2 (CONFIG_CGROUP_BPF=y)"},
    Check{"congestion_program", kLibrary, kNetwork | kBpf | kAdmin, congestion_program,
          Verdict::kWorksAround,
          "what is resumed with bytes under way begins with a slow start, and without ECN",
          "use Linux 6.4 or newer with CONFIG_DEBUG_INFO_BTF=y"},
    Check{"guard_program", kAgent, kBpf, guard_program, Verdict::kMissing,
          "the agent does not start", kStock},
    Check{"switch_tc", kSwitch, kNetwork | kBpf, switch_by_tc, Verdict::kMissing, "no switch by tc",
          "use Linux 5.8 or newer with CONFIG_NET_CLS_BPF and CONFIG_NET_SCH_INGRESS"},
    Check{"switch_xdp", kSwitch, kNetwork | kBpf, switch_by_xdp, Verdict::kWorksAround,
          "no switch by XDP on veth: tc does the same", "use Linux 5.9 or newer (XDP by link)"},
};

}  // namespace

std::span<const Check> bpf_checks() { return kChecks; }

}  // namespace tcpmig::doctor
