// SPDX-License-Identifier: MIT
#include "lab/teardown.hpp"

#include <unistd.h>

#include <algorithm>
#include <stdexcept>

#include "conn/cgroup.hpp"
#include "lab/plan.hpp"
#include "lab/process.hpp"
#include "lab/state.hpp"
#include "sys/netns.hpp"

namespace tcpmig::lab {
namespace {

namespace fs = std::filesystem;
using std::chrono::milliseconds;

std::vector<std::string> namespaces_of(const std::string& lab) {
  std::vector<std::string> result;
  std::error_code error;
  for (const auto& entry : fs::directory_iterator("/run/netns", error))
    if (!node_of(lab, entry.path().filename()).empty()) result.push_back(entry.path().filename());
  return result;
}

/// A role may add a suffix of its own to the node's name: "tcpmig-lab-dispatcher1.freeze".
std::vector<fs::path> cgroups_of(const std::string& lab) {
  return conn::find_cgroups([&](const std::string& name) {
    return !node_of(lab, name.substr(0, name.find('.'))).empty();
  });
}

std::vector<ProcessId> processes_of(const std::string& lab) {
  std::vector<ProcessId> result;
  if (const auto state = read_state(lab))
    for (const RoleProcess& role : state->processes)
      if (is_alive(role.process)) result.push_back(role.process);
  for (const std::string& netns : namespaces_of(lab))
    for (const ProcessId& process : processes_in(netns))
      if (std::find(result.begin(), result.end(), process) == result.end())
        result.push_back(process);
  return result;
}

/// A cgroup goes when its last process has been reaped, which may take a moment.
bool remove_cgroup(const fs::path& path) {
  return wait_until(milliseconds(2000),
                    [&] { return ::rmdir(path.c_str()) == 0 || errno == ENOENT; });
}

/// Evidence that a lab of this name was there. Pins and cgroups alone are none: a real cluster may
/// have the same name.
bool is_there(const std::string& lab) {
  return fs::exists(Paths(lab).state) || !namespaces_of(lab).empty();
}

}  // namespace

std::vector<std::string> leftovers(const std::string& lab) {
  const Paths paths(lab);
  std::vector<std::string> result;
  for (const ProcessId& process : processes_of(lab))
    result.push_back("process " + std::to_string(process.pid) + " " + process.program);
  for (const std::string& netns : namespaces_of(lab)) result.push_back("namespace " + netns);
  for (const fs::path& cgroup : cgroups_of(lab)) result.push_back("cgroup " + cgroup.string());
  for (const fs::path& path : {paths.pins, paths.run, paths.lock})
    if (fs::exists(path)) result.push_back("file " + path.string());
  return result;
}

bool tear_down(const std::string& lab) {
  if (!is_there(lab)) return false;
  const Paths paths(lab);
  std::vector<std::string> failed;
  for (const ProcessId& process : terminate(processes_of(lab), milliseconds(5000)))
    failed.push_back("process " + std::to_string(process.pid) + " does not end");
  for (const fs::path& cgroup : cgroups_of(lab))
    if (!remove_cgroup(cgroup)) failed.push_back("cgroup " + cgroup.string() + " is still in use");
  std::error_code error;
  fs::remove_all(paths.pins, error);
  if (error) failed.push_back(paths.pins.string() + ": " + error.message());
  for (const std::string& netns : namespaces_of(lab)) try {
      sys::remove_netns(netns);
    } catch (const std::exception& problem) {
      failed.emplace_back(problem.what());
    }
  if (failed.empty()) {
    fs::remove_all(paths.run);  // the evidence goes last
    return true;
  }
  std::string text = "the lab \"" + lab + "\" could not be removed completely:";
  for (const std::string& line : failed) text += "\n  " + line;
  throw std::runtime_error(text);
}

}  // namespace tcpmig::lab
