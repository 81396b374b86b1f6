// SPDX-License-Identifier: MIT
#include "conn/cgroup.hpp"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <fstream>
#include <sstream>
#include <stdexcept>

#include "sys/check.hpp"

namespace tcpmig::conn {
namespace {

std::string read_text(const char* path) {
  std::ifstream file(path);
  return {std::istreambuf_iterator<char>(file), {}};
}

/// "0" stands for the process that writes.
bool move_here(const std::filesystem::path& cgroup) noexcept {
  const sys::UniqueFd procs(::open((cgroup / "cgroup.procs").c_str(), O_WRONLY | O_CLOEXEC));
  return procs && ::write(procs.get(), "0", 1) == 1;
}

}  // namespace

std::optional<std::filesystem::path> find_cgroup2(std::string_view mounts) {
  std::istringstream lines{std::string(mounts)};
  for (std::string line; std::getline(lines, line);) {
    std::istringstream fields(line);
    std::string device, where, type;
    if (fields >> device >> where >> type && type == "cgroup2") return where;
  }
  return std::nullopt;
}

std::optional<std::string> find_own_cgroup(std::string_view cgroups) {
  std::istringstream lines{std::string(cgroups)};
  for (std::string line; std::getline(lines, line);)
    if (line.starts_with("0::/")) return line.substr(3);
  return std::nullopt;
}

std::vector<std::filesystem::path> find_cgroups(
    const std::function<bool(const std::string&)>& wanted) {
  namespace fs = std::filesystem;
  std::vector<fs::path> found;
  const auto mount = find_cgroup2(read_text("/proc/mounts"));
  if (!mount) return found;
  std::error_code gone;  // cgroups come and go while we look
  for (fs::recursive_directory_iterator entry(*mount, gone), end; entry != end;
       entry.increment(gone))
    if (entry->is_directory(gone) && wanted(entry->path().filename()))
      found.push_back(entry->path());
  std::ranges::reverse(found);
  return found;
}

ProcessCgroup::ProcessCgroup(const std::string& name) {
  const auto mount = find_cgroup2(read_text("/proc/mounts"));
  const auto own = find_own_cgroup(read_text("/proc/self/cgroup"));
  if (!mount || !own) throw std::runtime_error("no cgroup v2 is mounted");
  previous_ = *mount / std::filesystem::path(*own).relative_path();
  // a child of a process that was killed may still be in the one of that name
  if (previous_.filename() == name) previous_ = previous_.parent_path();
  path_ = previous_ / name;
  if (::mkdir(path_.c_str(), 0755) < 0 && errno != EEXIST)
    sys::check("mkdir " + path_.string(), -1);
  fd_.reset(::open(path_.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (fd_ && move_here(path_)) return;
  const int error = errno;
  ::rmdir(path_.c_str());
  throw std::system_error(error, std::generic_category(), "enter cgroup " + path_.string());
}

ProcessCgroup::~ProcessCgroup() {
  move_here(previous_);
  ::rmdir(path_.c_str());  // busy: another process of ours is still in it, and will do it
}

}  // namespace tcpmig::conn
