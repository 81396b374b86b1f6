// SPDX-License-Identifier: MIT
#pragma once
#include <filesystem>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "sys/unique_fd.hpp"

namespace tcpmig::conn {

/// Where cgroup v2 is mounted (alone, or beside v1 as in /sys/fs/cgroup/unified), given the text of
/// /proc/mounts.
std::optional<std::filesystem::path> find_cgroup2(std::string_view mounts);
/// The path of a process in cgroup v2, given the text of /proc/PID/cgroup: the line "0::/path".
std::optional<std::string> find_own_cgroup(std::string_view cgroups);

/// The cgroups (v2) of this machine whose own name is wanted, the innermost first. A process of another session lives elsewhere
/// in the tree, so all of it is looked at.
std::vector<std::filesystem::path> find_cgroups(
    const std::function<bool(const std::string&)>& wanted);

/// This process in a cgroup of its own below the one it was in. The destructor moves the process
/// back and removes the cgroup. One that is left over from a killed process of the same name is
/// used again.
class ProcessCgroup {
 public:
  /// Throws std::runtime_error when there is no cgroup v2, std::system_error when it may not be
  /// used.
  explicit ProcessCgroup(const std::string& name);
  ~ProcessCgroup();
  ProcessCgroup(const ProcessCgroup&) = delete;
  ProcessCgroup& operator=(const ProcessCgroup&) = delete;

  [[nodiscard]] int fd() const noexcept { return fd_.get(); }
  [[nodiscard]] const std::filesystem::path& path() const noexcept { return path_; }

 private:
  std::filesystem::path previous_;
  std::filesystem::path path_;
  sys::UniqueFd fd_;
};

}  // namespace tcpmig::conn
