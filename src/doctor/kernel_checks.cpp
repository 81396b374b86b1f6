// SPDX-License-Identifier: MIT
// Devices, processes, and the rest.
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <fstream>

#include "agent/findings.hpp"
#include "conn/grace_period.hpp"
#include "doctor/checks.hpp"
#include "doctor/socket_pair.hpp"
#include "sys/check.hpp"
#include "sys/foreign_descriptor.hpp"
#include "sys/process_stop.hpp"
#include "sys/tun.hpp"

namespace tcpmig::doctor {
namespace {

/// A child that waits for its end.
class Sleeper {
 public:
  Sleeper() : process_(sys::check("fork", ::fork())) {
    if (process_ != 0) return;
    ::prctl(PR_SET_PDEATHSIG, SIGKILL);
    for (;;) ::pause();
  }
  ~Sleeper() {
    ::kill(process_, SIGKILL);
    ::waitpid(process_, nullptr, 0);
  }
  Sleeper(const Sleeper&) = delete;
  Sleeper& operator=(const Sleeper&) = delete;
  [[nodiscard]] pid_t process() const noexcept { return process_; }

 private:
  pid_t process_;
};

std::string pidfd_getfd() {
  const SocketPair pair;
  const Sleeper other;
  const sys::UniqueFd copy = sys::copy_descriptor(other.process(), pair.server.get());
  require(talk(pair.client.get(), copy.get()), "the copy is another connection");
  return "a descriptor is copied out of another process";
}

bool is_stopped(pid_t process) {
  std::ifstream file("/proc/" + std::to_string(process) + "/stat");
  std::string pid, name, state;
  file >> pid >> name >> state;
  return state == "t";
}

std::string ptrace() {
  const Sleeper other;
  const std::array processes{other.process()};
  sys::ProcessStop stop(processes);
  require(is_stopped(other.process()), "the process does not stand still");
  stop.release();
  return "a process stands still without a signal";
}

std::string membarrier() {
  require(conn::wait_for_grace_period(), "no MEMBARRIER_CMD_GLOBAL");
  return "MEMBARRIER_CMD_GLOBAL";
}

std::string tun() {
  sys::Tun device("doctor-tun");
  return "/dev/net/tun, a device was made";
}

std::string sock_destroy() {
  const agent::Finding finding = agent::sock_destroy();
  require(finding.ok, finding.detail);
  return finding.detail;
}

constexpr std::array kChecks{
    Check{"pidfd_getfd", kLibrary, kNetwork, pidfd_getfd, Verdict::kMissing,
          "`tcpmig freeze` does not work",
          "use Linux 5.6 or newer; kernel.yama.ptrace_scope below 3"},
    Check{"ptrace", kLibrary, kNothing, ptrace, Verdict::kMissing, "`tcpmig freeze` does not work",
          "set kernel.yama.ptrace_scope below 3; run it outside of a seccomp sandbox"},
    Check{"sock_destroy", kLibrary | kAgent | kDispatcher, kNetwork, sock_destroy,
          Verdict::kMissing, "a connection with the four-tuple of one in TIME_WAIT is refused",
          "use a kernel with CONFIG_INET_DIAG_DESTROY=y"},
    Check{"membarrier", kDispatcher, kNothing, membarrier, Verdict::kWorksAround,
          "a frozen socket is closed 200 ms later", "boot without nohz_full="},
    Check{"tun", kAgent, kNetwork, tun, Verdict::kMissing,
          "the agent cannot start: early packets and large transfers go through a TUN",
          "load the module tun, or give the container /dev/net/tun"},
};

}  // namespace

std::span<const Check> kernel_checks() { return kChecks; }

}  // namespace tcpmig::doctor
