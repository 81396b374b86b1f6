// SPDX-License-Identifier: MIT
// Rights, limits, settings: what is looked at.
#include <linux/capability.h>
#include <linux/magic.h>
#include <sys/resource.h>
#include <sys/vfs.h>

#include <array>
#include <fstream>
#include <iterator>

#include "agent/findings.hpp"
#include "conn/cgroup.hpp"
#include "doctor/checks.hpp"
#include "sys/capability.hpp"
#include "sys/check.hpp"
#include "sys/ledger.hpp"

namespace tcpmig::doctor {
namespace {

std::string capability(unsigned number, const char* name) {
  require(sys::has_capability(number), std::string("no ") + name);
  return name;
}

std::string cap_net_admin() { return capability(CAP_NET_ADMIN, "CAP_NET_ADMIN"); }
std::string cap_net_raw() { return capability(CAP_NET_RAW, "CAP_NET_RAW"); }
std::string cap_sys_admin() { return capability(CAP_SYS_ADMIN, "CAP_SYS_ADMIN"); }
std::string cap_sys_ptrace() { return capability(CAP_SYS_PTRACE, "CAP_SYS_PTRACE"); }

std::string cap_bpf() {
  if (sys::has_capability(CAP_SYS_ADMIN)) return "CAP_SYS_ADMIN, which includes CAP_BPF";
  std::string setting = "0";
  try {
    setting = sys::read_sysctl("kernel.unprivileged_bpf_disabled");
  } catch (const std::exception&) {  // a kernel without it
  }
  require(sys::has_capability(CAP_BPF),
          "no CAP_BPF (kernel.unprivileged_bpf_disabled = " + setting + ")");
  return "CAP_BPF";
}

/// What an agent checks itself.
std::string found(const agent::Finding& finding) {
  require(finding.ok, finding.detail);
  return finding.detail;
}

std::string btf() { return found(agent::btf()); }
std::string syncookies() { return found(agent::syncookies()); }
std::string timestamps_on() { return found(agent::tcp_option("tcp_timestamps", "timestamps")); }
std::string sack_on() { return found(agent::tcp_option("tcp_sack", "SACK")); }
std::string scaling_on() {
  return found(agent::tcp_option("tcp_window_scaling", "window scaling"));
}

std::string rp_filter() {
  const std::string value = sys::read_sysctl("net.ipv4.conf.all.rp_filter");
  require(value != "1", "net.ipv4.conf.all.rp_filter = 1 (strict)");
  return "net.ipv4.conf.all.rp_filter = " + value;
}

std::string bpffs() {
  struct statfs mounted{};
  sys::check("look at /sys/fs/bpf", ::statfs("/sys/fs/bpf", &mounted));
  require(static_cast<unsigned>(mounted.f_type) == BPF_FS_MAGIC,
          "nothing is mounted at /sys/fs/bpf");
  return "mounted at /sys/fs/bpf";
}

std::string cgroup2() {
  std::ifstream mounts("/proc/mounts");
  const std::string text{std::istreambuf_iterator<char>(mounts), {}};
  const auto found = conn::find_cgroup2(text);
  require(found.has_value(), "no cgroup v2 is mounted");
  return "mounted at " + found->string();
}

std::string descriptors() {
  rlimit limit{};
  sys::check("getrlimit", ::getrlimit(RLIMIT_NOFILE, &limit));
  const std::string text = "RLIMIT_NOFILE " + std::to_string(limit.rlim_cur) + ", at most " +
                           std::to_string(limit.rlim_max);
  require(limit.rlim_max >= 65'536, text);  // a dispatcher raises the first to the second
  return text;
}

constexpr const char* kRoot = "run it as root, or with this capability";
constexpr unsigned kMovers = kLibrary | kDispatcher;

constexpr std::array kChecks{
    Check{"cap_net_admin", kEverything, kNothing, cap_net_admin, Verdict::kMissing,
          "nothing works: no connection is frozen or resumed, no role starts", kRoot},
    Check{
        "cap_bpf", kAgent | kDispatcher | kSwitch, kNothing, cap_bpf, Verdict::kMissing,
        "no BPF program is loaded: no switch, no agent; the library and the dispatcher do without, "
        "slower",
        kRoot},
    Check{"cap_net_raw", kLibrary | kAgent, kNothing, cap_net_raw, Verdict::kMissing,
          "a connection whose peer has closed is not resumed", kRoot},
    Check{"cap_sys_admin", kEverything, kNothing, cap_sys_admin, Verdict::kMissing,
          "no other network namespace is entered (`tcpmig freeze`, `resume --netns`, the lab), "
          "nothing is mounted",
          kRoot},
    Check{"cap_sys_ptrace", kLibrary, kNothing, cap_sys_ptrace, Verdict::kMissing,
          "`tcpmig freeze` takes no connection out of another user's process", kRoot},
    Check{"btf", kAgent | kDispatcher, kNothing, btf, Verdict::kMissing,
          "no kernel resume: servers must run under `tcpmig exec`, or have a `handoff`; dumps take "
          "10 us "
          "more",
          "use a kernel with CONFIG_DEBUG_INFO_BTF=y"},
    Check{"bpffs", kAgent | kSwitch, kNothing, bpffs, Verdict::kWorksAround,
          "none: a role mounts it when it starts", "mount -t bpf bpf /sys/fs/bpf"},
    Check{"cgroup2", kMovers, kNothing, cgroup2, Verdict::kWorksAround,
          "connections are dumped by the plain recipe (10 us more), and acknowledge up to 128 KB "
          "unread",
          "mount -t cgroup2 none /sys/fs/cgroup/unified"},
    Check{"tcp_syncookies", kAgent, kNothing, syncookies, Verdict::kMissing,
          "no kernel resume (the kernel would answer with RST)",
          "sysctl net.ipv4.tcp_syncookies=1 (the default)"},
    Check{"tcp_timestamps", kAgent, kNothing, timestamps_on, Verdict::kMissing,
          "no kernel resume of connections that use timestamps",
          "sysctl net.ipv4.tcp_timestamps=1 (the default)"},
    Check{"tcp_sack", kAgent, kNothing, sack_on, Verdict::kMissing,
          "no kernel resume of connections that use SACK",
          "sysctl net.ipv4.tcp_sack=1 (the default)"},
    Check{"tcp_window_scaling", kAgent, kNothing, scaling_on, Verdict::kMissing,
          "no kernel resume of connections that use window scaling",
          "sysctl net.ipv4.tcp_window_scaling=1 (the default)"},
    Check{"rp_filter", kAgent | kSwitch, kNothing, rp_filter, Verdict::kWorksAround,
          "packets whose way back is another interface are dropped, where an interface does not "
          "say 2 itself (`tcpmig agent check` looks at it)",
          "sysctl net.ipv4.conf.all.rp_filter=0"},
    Check{"descriptors", kDispatcher, kNothing, descriptors, Verdict::kWorksAround,
          "a dispatcher has no more clients at a time than descriptors",
          "raise the hard limit (LimitNOFILE= of systemd, /etc/security/limits.conf)"},
};

}  // namespace

std::span<const Check> machine_checks() { return kChecks; }

}  // namespace tcpmig::doctor
