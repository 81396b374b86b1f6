// SPDX-License-Identifier: MIT
#include "doctor/doctor.hpp"

#include <fcntl.h>
#include <linux/capability.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <chrono>
#include <cstring>
#include <nlohmann/json.hpp>
#include <system_error>

#include "conn/cgroup.hpp"
#include "doctor/checks.hpp"
#include "sys/capability.hpp"
#include "sys/check.hpp"
#include "sys/netlink.hpp"

namespace tcpmig::doctor {
namespace {

using Json = nlohmann::json;
using Clock = std::chrono::steady_clock;

constexpr std::chrono::seconds kLimit{120};

std::vector<const Check*> wanted_checks(unsigned roles) {
  std::vector<const Check*> wanted;
  for (const auto table :
       {machine_checks(), socket_checks(), bpf_checks(), kfunc_checks(), kernel_checks()})
    for (const Check& check : table)
      if ((check.roles & roles) != 0) wanted.push_back(&check);
  return wanted;
}

// ---- in the child

/// A network namespace of our own, and with it the rights over it; without root by a user namespace.
bool enter_network() noexcept {
  try {
    if (::unshare(CLONE_NEWNET) < 0 && ::unshare(CLONE_NEWUSER | CLONE_NEWNET) < 0) return false;
    sys::Netlink().set_link("lo", true);
    return true;
  } catch (const std::exception&) {
    return false;
  }
}

unsigned rights_over_the_machine() {
  unsigned rights = kNothing;
  const bool admin = sys::has_capability(CAP_SYS_ADMIN);
  if (admin) rights |= kAdmin;
  if ((admin || sys::has_capability(CAP_BPF)) && sys::has_capability(CAP_NET_ADMIN)) rights |= kBpf;
  return rights;
}

std::string missing_rights(unsigned missing) {
  std::string text;
  if ((missing & kNetwork) != 0) text += ", a network namespace";
  if ((missing & kBpf) != 0) text += ", CAP_BPF and CAP_NET_ADMIN";
  if ((missing & kAdmin) != 0) text += ", CAP_SYS_ADMIN";
  return "trying it takes " + text.substr(2);
}

Json try_one(const Check& check, unsigned rights) {
  if ((check.needs & ~rights) != 0)
    return {{"verdict", Verdict::kNotRun}, {"detail", missing_rights(check.needs & ~rights)}};
  try {
    return {{"verdict", Verdict::kOk}, {"detail", check.probe()}};
  } catch (const std::system_error& error) {
    const int code = error.code().value();
    const bool forbidden = (code == EPERM || code == EACCES) && (rights & kAdmin) == 0;
    return {{"verdict", forbidden ? Verdict::kNotRun : check.without}, {"detail", error.what()}};
  } catch (const std::exception& error) {
    return {{"verdict", check.without}, {"detail", error.what()}};
  }
}

/// One line for each check, in their order. Whoever reads may have gone: then the rest runs all the same, and cleans up.
[[noreturn]] void run_checks(const std::vector<const Check*>& checks, int output) {
  ::setsid();  // Ctrl-C is for whoever waits
  ::signal(SIGPIPE, SIG_IGN);
  unsigned rights = rights_over_the_machine();
  bool inside = false;
  try {
    for (const Check* check : checks) {
      // first comes what only looks at the machine
      if (!inside && check->needs != kNothing) {
        if (enter_network()) rights |= kNetwork;
        inside = true;
      }
      const std::string line =
          try_one(*check, rights).dump(-1, ' ', true, Json::error_handler_t::replace) + "\n";
      [[maybe_unused]] const auto written = ::write(output, line.data(), line.size());
    }
  } catch (...) {
    ::_exit(1);
  }
  ::_exit(0);
}

// ---- in the parent

/// Of a doctor that was killed together with its child.
void remove_cgroups(const std::string& name) noexcept {
  try {
    for (const auto& cgroup :
         conn::find_cgroups([&](const std::string& found) { return found.starts_with(name); }))
      ::rmdir(cgroup.c_str());  // busy: another doctor is at work
  } catch (const std::exception&) {
  }
}

std::string read_until_closed(int fd, Clock::time_point until) {
  std::string text;
  std::array<char, 4096> buffer{};
  for (;;) {
    const auto left =
        std::chrono::duration_cast<std::chrono::milliseconds>(until - Clock::now()).count();
    pollfd entry{.fd = fd, .events = POLLIN, .revents = 0};
    if (left <= 0 || ::poll(&entry, 1, static_cast<int>(left)) <= 0) return text;
    const auto got = ::read(fd, buffer.data(), buffer.size());
    if (got <= 0) return text;
    text.append(buffer.data(), static_cast<std::size_t>(got));
  }
}

std::string end_of(pid_t child) {
  int status = 0;
  if (::waitpid(child, &status, WNOHANG) == 0) {
    ::kill(child, SIGKILL);
    ::waitpid(child, &status, 0);
  }
  if (WIFSIGNALED(status)) return ::strsignal(WTERMSIG(status));
  return "exit code " + std::to_string(WEXITSTATUS(status));
}

Finding finding_of(const Check& check, const std::string& line) {
  const Json result = Json::parse(line, nullptr, false);
  Finding finding{.name = check.name,
                  .roles = check.roles,
                  .verdict = result.value("verdict", Verdict::kMissing),
                  .detail = result.value("detail", ""),
                  .cost = check.cost,
                  .fix = check.fix};
  if (finding.verdict == Verdict::kNotRun) finding.fix = "run `tcpmig doctor` as root";
  return finding;
}

std::vector<Finding> findings_of(const std::vector<const Check*>& checks, std::string lines,
                                 const std::string& end) {
  std::vector<Finding> findings;
  for (const Check* check : checks) {
    const auto length = lines.find('\n');
    if (length != std::string::npos) {
      findings.push_back(finding_of(*check, lines.substr(0, length)));
      lines.erase(0, length + 1);
      continue;
    }
    const bool first = findings.empty() || findings.back().detail.find(end) == std::string::npos;
    findings.push_back({.name = check->name,
                        .roles = check->roles,
                        .verdict = first ? Verdict::kMissing : Verdict::kNotRun,
                        .detail = "the trial ended by itself (" + end + ")",
                        .cost = check->cost,
                        .fix = check->fix});
  }
  return findings;
}

}  // namespace

std::string to_string(Verdict verdict) {
  switch (verdict) {
    case Verdict::kOk:
      return "ok";
    case Verdict::kWorksAround:
      return "works around";
    case Verdict::kMissing:
      return "missing";
    case Verdict::kNotRun:
      return "not run";
  }
  return "";
}

std::vector<Finding> examine(unsigned roles) {
  const auto checks = wanted_checks(roles);
  remove_cgroups("tcpmig-doctor-");
  std::array<int, 2> ends{};
  sys::check("pipe", ::pipe2(ends.data(), O_CLOEXEC));
  const sys::UniqueFd reader(ends[0]);
  sys::UniqueFd writer(ends[1]);
  const pid_t child = sys::check("fork", ::fork());
  if (child == 0) run_checks(checks, writer.get());
  writer.reset();
  std::string lines = read_until_closed(reader.get(), Clock::now() + kLimit);
  const std::string end = end_of(child);
  remove_cgroups("tcpmig-doctor-" + std::to_string(child));
  return findings_of(checks, std::move(lines), end);
}

}  // namespace tcpmig::doctor
