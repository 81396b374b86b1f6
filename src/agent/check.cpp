// SPDX-License-Identifier: MIT
#include <fcntl.h>
#include <linux/capability.h>
#include <net/if.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <filesystem>

#include "agent/findings.hpp"
#include "agent/programs.hpp"
#include "sys/capability.hpp"
#include "sys/ledger.hpp"
#include "sys/sock_diag.hpp"

namespace tcpmig::agent {
namespace {

std::optional<int> sysctl_number(const std::string& name) {
  try {
    return std::stoi(sys::read_sysctl(name));
  } catch (const std::exception&) {
    return std::nullopt;  // this kernel has no such setting
  }
}

Finding rights() {
  std::string missing;
  if (!sys::has_capability(CAP_NET_ADMIN)) missing += " CAP_NET_ADMIN";
  if (!sys::has_capability(CAP_BPF) && !sys::has_capability(CAP_SYS_ADMIN)) missing += " CAP_BPF";
  return {"rights", missing.empty(),
          missing.empty() ? "CAP_BPF, CAP_NET_ADMIN" : "missing:" + missing,
          "the agent cannot start", "run it as root, or with these capabilities"};
}

Finding rp_filter(const std::string& interface) {
  const int all = sysctl_number("net.ipv4.conf.all.rp_filter").value_or(0);
  const int own = sysctl_number("net.ipv4.conf." + interface + ".rp_filter").value_or(0);
  const bool strict = std::max(all, own) == 1;
  return {"rp_filter", !strict,
          "effective on " + interface + ": " + std::to_string(std::max(all, own)) +
              (strict ? " (strict)" : ""),
          "packets of clients whose route does not lead through " + interface + " are dropped",
          "sysctl net.ipv4.conf." + interface +
              ".rp_filter=2, unless the switch is the way to all clients"};
}

Finding tun() {
  const sys::UniqueFd fd(::open("/dev/net/tun", O_RDWR | O_CLOEXEC));
  return {"tun", static_cast<bool>(fd),
          fd ? "/dev/net/tun" : std::string("/dev/net/tun: ") + std::strerror(errno),
          "the agent cannot start: early packets and large transfers go through a TUN",
          "load the module tun, or give the container /dev/net/tun"};
}

Finding interface_of(const config::Node& self) {
  const bool there = ::if_nametoindex(self.interface.c_str()) != 0;
  return {"interface", there, self.interface + (there ? "" : ": there is none of that name"),
          "the agent cannot start", "correct `interface` of [[node]] " + self.name};
}

}  // namespace

Finding btf() {
  const bool there = std::filesystem::exists("/sys/kernel/btf/vmlinux");
  return {"btf", there, there ? "/sys/kernel/btf/vmlinux" : "no /sys/kernel/btf/vmlinux",
          "no kernel resume: servers must run under `tcpmig exec`, or have a `handoff`",
          "use a kernel with CONFIG_DEBUG_INFO_BTF=y"};
}

Finding syncookies() {
  const auto value = sysctl_number("net.ipv4.tcp_syncookies");
  return {"tcp_syncookies", value.value_or(0) >= 1,
          value ? "net.ipv4.tcp_syncookies = " + std::to_string(*value)
                : "the kernel has no SYN cookies (CONFIG_SYN_COOKIES)",
          "no kernel resume (the kernel would answer with RST): servers must run under `tcpmig "
          "exec`, or "
          "have a `handoff`",
          "sysctl net.ipv4.tcp_syncookies=1 (the default)"};
}

/// What the kernel refuses to a child although the client negotiated it.
Finding tcp_option(const std::string& name, const std::string& what) {
  const bool on = sysctl_number("net.ipv4." + name).value_or(1) != 0;
  return {name, on, "net.ipv4." + name + (on ? " is on" : " = 0"),
          "connections of clients that use " + what + " cannot be resumed here",
          "sysctl net.ipv4." + name + "=1 (the default)"};
}

/// By destroying a socket that cannot exist: the kernel says whether it knows how to.
Finding sock_destroy() {
  std::string detail = "SOCK_DESTROY";
  bool works = true;
  try {
    const auto nowhere = *sys::Address::parse("127.0.0.1");
    sys::SockDiag().destroy({nowhere, 0}, {nowhere, 0});
  } catch (const std::exception& error) {
    detail = error.what();
    works = false;
  }
  return {"sock_destroy", works, detail,
          "a connection with the four-tuple of one in TIME_WAIT is refused",
          "use a kernel with CONFIG_INET_DIAG_DESTROY=y"};
}

/// The kernel itself says it by loading the program or not, which takes rights.
Finding kfunc(bool has_rights) {
  const std::string missing = Programs::probe_kernel_resume();
  const bool unknown = !missing.empty() && !has_rights;
  return {"kfunc", missing.empty(),
          missing.empty() ? "bpf_sk_assign_tcp_reqsk()"
          : unknown       ? "cannot be told without the rights above (" + missing + ")"
                          : missing,
          "no kernel resume: servers must run under `tcpmig exec`, or have a `handoff`",
          unknown ? "run `tcpmig agent check` as root"
                  : "start the servers by `tcpmig exec`, or use Linux 6.9 or newer with "
                    "CONFIG_SYN_COOKIES=y"};
}

std::vector<Finding> host_findings(const config::Config& /*config*/, const config::Node& self) {
  return {rights(),
          interface_of(self),
          syncookies(),
          rp_filter(self.interface),
          tcp_option("tcp_timestamps", "timestamps"),
          tcp_option("tcp_sack", "SACK"),
          tcp_option("tcp_window_scaling", "window scaling"),
          tun(),
          sock_destroy()};
}

std::vector<Finding> check(const config::Config& config, const config::Node& self) {
  std::vector<Finding> findings = host_findings(config, self);
  findings.push_back(btf());
  findings.push_back(kfunc(findings.front().ok));
  return findings;
}

}  // namespace tcpmig::agent
