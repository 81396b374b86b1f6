// SPDX-License-Identifier: MIT
#include "sys/role_lock.hpp"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>

#include <algorithm>
#include <fstream>

#include "sys/bpf.hpp"
#include "sys/check.hpp"
#include "sys/errors.hpp"

namespace tcpmig::sys {
namespace {

std::string first_line(const std::filesystem::path& file) {
  std::string line;
  std::ifstream input(file);
  std::getline(input, line);
  return line;
}

/// False when the file was removed (or replaced) between open() and flock(): then the lock locks
/// nobody out.
bool is_still(int fd, const std::filesystem::path& file) {
  struct stat ours{};
  struct stat there{};
  check("fstat " + file.string(), ::fstat(fd, &ours));
  return ::stat(file.c_str(), &there) == 0 && ours.st_ino == there.st_ino &&
         ours.st_dev == there.st_dev;
}

void write_pid(int fd, const std::filesystem::path& file) {
  const std::string pid = std::to_string(::getpid()) + "\n";
  check("truncate " + file.string(), ::ftruncate(fd, 0));
  check("write " + file.string(), ::pwrite(fd, pid.data(), pid.size(), 0));
}

/// bpffs refuses names with a dot, and host names have them.
std::string without_dots(std::string path) {
  std::ranges::replace(path, '.', ':');
  return path;
}

}  // namespace

std::filesystem::path RolePaths::pins(const std::string& role) const {
  return "/sys/fs/bpf/tcpmig/" + without_dots(instance + "/" + node + "/" + role);
}

std::filesystem::path RolePaths::run() const {
  return std::filesystem::path("/run/tcpmig") / instance / node;
}

std::filesystem::path RolePaths::socket(const std::string& role) const {
  return run() / (role + ".sock");
}

std::filesystem::path RolePaths::handover_socket() const { return run() / "exec.sock"; }

std::filesystem::path RolePaths::departures() const { return run() / "departures"; }

std::filesystem::path RolePaths::ledger(const std::string& role) const {
  return run() / (role + ".ledger.json");
}

std::optional<UniqueFd> try_lock(const std::filesystem::path& file) {
  for (;;) {
    UniqueFd fd(
        check("open " + file.string(), ::open(file.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0644)));
    if (::flock(fd.get(), LOCK_EX | LOCK_NB) < 0) {
      if (errno != EWOULDBLOCK) check("flock " + file.string(), -1);
      return std::nullopt;
    }
    if (is_still(fd.get(), file)) return fd;
  }
}

RoleLock::RoleLock(const RolePaths& paths, const std::string& role) {
  std::filesystem::create_directories(paths.run());
  const std::filesystem::path file = paths.run() / (role + ".lock");
  auto locked = try_lock(file);
  if (!locked)
    throw AlreadyRunning(role + " of node " + paths.node + " is already running (pid " +
                         first_line(file) + "): stop it first");
  fd_ = std::move(*locked);
  write_pid(fd_.get(), file);
}

void remove_traces(const RolePaths& paths, const std::string& role) {
  remove_empty_pins(paths.pins(role));
  std::error_code ignored;
  std::filesystem::remove(paths.socket(role), ignored);
  std::filesystem::remove(paths.run() / (role + ".lock"), ignored);  // who waits for it looks again
  std::filesystem::remove(paths.run(), ignored);
  std::filesystem::remove(paths.run().parent_path(), ignored);
}

}  // namespace tcpmig::sys
