// SPDX-License-Identifier: MIT
// `tcpmig doctor`: every check has a verdict, with and without rights, and nothing is left.
#include <fcntl.h>
#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <map>
#include <nlohmann/json.hpp>
#include <set>
#include <thread>

#include "catch.hpp"
#include "conn/cgroup.hpp"
#include "doctor/doctor.hpp"
#include "lab/payload.hpp"
#include "lab/process.hpp"
#include "sys/check.hpp"
#include "sys_support.hpp"

using namespace sys_test;
using namespace std::chrono_literals;
namespace fs = std::filesystem;
namespace lab = tcpmig::lab;
using Json = nlohmann::json;

namespace {

const std::set<std::string> kNames{"cap_net_admin",
                                   "cap_bpf",
                                   "cap_net_raw",
                                   "cap_sys_admin",
                                   "cap_sys_ptrace",
                                   "btf",
                                   "bpffs",
                                   "cgroup2",
                                   "tcp_syncookies",
                                   "tcp_timestamps",
                                   "tcp_sack",
                                   "rp_filter",
                                   "descriptors",
                                   "tcp_window_scaling",
                                   "tcp_repair",
                                   "repair_window",
                                   "repair_and_data",
                                   "repair_options",
                                   "timestamps",
                                   "timestamps_us",
                                   "silent_close",
                                   "hold",
                                   "repair_resume",
                                   "silent_disconnect",
                                   "raw_socket",
                                   "locked_memory",
                                   "ring_buffer",
                                   "lock_program",
                                   "dump_program",
                                   "window_program",
                                   "congestion_program",
                                   "guard_program",
                                   "kfunc",
                                   "kfunc_opens",
                                   "kfunc_refuses",
                                   "kfunc_syncookies",
                                   "switch_tc",
                                   "switch_xdp",
                                   "pidfd_getfd",
                                   "ptrace",
                                   "sock_destroy",
                                   "membarrier",
                                   "tun"};

struct Output {
  int code = -1;
  Json json;
  std::map<std::string, std::string> verdicts;
};

pid_t start_doctor(std::vector<std::string> before, const std::vector<std::string>& words,
                   const fs::path& out) {
  const char* program = std::getenv("TCPMIG_BIN");
  REQUIRE(program != nullptr);
  before.insert(before.end(), {program, "doctor", "--json"});
  before.insert(before.end(), words.begin(), words.end());
  const UniqueFd file(tcpmig::sys::check(
      "open", ::open(out.c_str(), O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0644)));
  return lab::start({.argv = before, .output = file.get()});
}

Output doctor(const std::vector<std::string>& before = {},
              const std::vector<std::string>& words = {}) {
  const lab::TemporaryDirectory directory("tcpmig-doctor-test");
  const fs::path out = directory.path() / "out";
  Output output;
  output.code = lab::wait_for(start_doctor(before, words, out));
  std::ifstream input(out);
  output.json = Json::parse(input);
  for (const Json& check : output.json.at("checks"))
    output.verdicts[check.at("name")] = check.at("verdict");
  return output;
}

/// Without what other tests make, which may run at the same time.
std::set<std::string> entries(const fs::path& directory) {
  std::set<std::string> names;
  std::error_code none;
  for (fs::directory_iterator entry(directory, none), end; !none && entry != end;
       entry.increment(none))
    if (const std::string name = entry->path().filename();
        !name.starts_with("tmt-") && !name.starts_with("tcpmig"))
      names.insert(name);
  return names;
}

/// Of the doctor's cgroups.
bool is_clean() {
  return tcpmig::conn::find_cgroups(
             [](const std::string& name) { return name.starts_with("tcpmig-doctor-"); })
      .empty();
}

}  // namespace

TEST_CASE("doctor: every check appears, none is missing here, and nothing is left") {
  if (cannot_run_here()) return;
  const auto links = entries("/sys/class/net");
  const Output output = doctor();
  CAPTURE(output.json.dump(1));
  std::set<std::string> names;
  for (const auto& [name, verdict] : output.verdicts) {
    names.insert(name);
    CAPTURE(name);
    // what this machine may lack: a kernel before 6.9, 6.7, 6.2, .., and limits
    const std::set<std::string> may{"kfunc", "kfunc_opens", "kfunc_refuses", "kfunc_syncookies",
                                    "btf",   "tun"};
    CHECK((verdict == "ok" || verdict == "works around" || may.contains(name)));
  }
  CHECK(names == kNames);
  for (const char* name : {"tcp_repair", "silent_close", "silent_disconnect", "repair_resume",
                           "lock_program", "pidfd_getfd", "ptrace", "hold"})
    CHECK(output.verdicts.at(name) == "ok");
  CHECK(output.code == (output.json.at("ok") == true ? 0 : 1));
  CHECK(entries("/sys/class/net") == links);
  CHECK_FALSE(entries("/sys/fs/bpf").contains("doctor"));
  CHECK(is_clean());
}

TEST_CASE("doctor: a role's checks are those that it relies on") {
  if (cannot_run_here()) return;
  const Output output = doctor({}, {"--role", "switch"});
  CHECK(output.verdicts.contains("switch_tc"));
  CHECK_FALSE(output.verdicts.contains("tcp_repair"));
  for (const Json& check : output.json.at("checks")) {
    const auto roles = check.at("roles").get<std::vector<std::string>>();
    CHECK(std::ranges::find(roles, "switch") != roles.end());
  }
}

TEST_CASE("doctor: without rights it says what is missing and what was not tried") {
  if (cannot_run_here()) return;
  const Output output = doctor(
      {"setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups", "--inh-caps=-all"});
  CAPTURE(output.json.dump(1));
  CHECK(output.code == 1);
  CHECK(output.json.at("ok") == false);
  CHECK(output.verdicts.size() == kNames.size());
  for (const char* name : {"cap_net_admin", "cap_bpf", "cap_net_raw", "cap_sys_admin"})
    CHECK(output.verdicts.at(name) == "missing");
  for (const char* name : {"lock_program", "kfunc", "switch_tc", "dump_program"})
    CHECK(output.verdicts.at(name) == "not run");
  CHECK(output.verdicts.at("membarrier") == "ok");
  // by a user namespace, where this system lets one be made
  CHECK(
      (output.verdicts.at("tcp_repair") == "ok" || output.verdicts.at("tcp_repair") == "not run"));
}

TEST_CASE("doctor: killed at any moment it leaves nothing") {
  if (cannot_run_here()) return;
  const lab::TemporaryDirectory directory("tcpmig-doctor-test");
  const auto links = entries("/sys/class/net"), pins = entries("/sys/fs/bpf"),
             names = entries("/run/netns");
  for (const int signal : {SIGKILL, SIGINT})
    for (const auto delay : {20ms, 200ms, 600ms, 1200ms}) {
      const pid_t running = start_doctor({}, {}, directory.path() / "out");
      std::this_thread::sleep_for(delay);
      ::kill(running, signal);
      lab::wait_for(running);
    }
  CHECK(holds_within(20s, is_clean));
  CHECK(entries("/sys/class/net") == links);
  CHECK(entries("/sys/fs/bpf") == pins);
  CHECK(entries("/run/netns") == names);
}
