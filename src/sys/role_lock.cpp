// SPDX-License-Identifier: MIT
#include "sys/role_lock.hpp"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>

#include <algorithm>
#include <array>
#include <stdexcept>

#include "sys/check.hpp"

namespace tcpmig::sys {
namespace {

std::string content(int fd) {
  std::array<char, 32> text{};
  const auto length = ::pread(fd, text.data(), text.size(), 0);
  const std::string all(text.data(), length > 0 ? static_cast<std::size_t>(length) : 0);
  return all.substr(0, all.find('\n'));
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

std::filesystem::path RolePaths::ledger(const std::string& role) const {
  return run() / (role + ".ledger.json");
}

RoleLock::RoleLock(const RolePaths& paths, const std::string& role) {
  std::filesystem::create_directories(paths.run());
  const std::filesystem::path file = paths.run() / (role + ".lock");
  do {
    fd_.reset(
        check("open " + file.string(), ::open(file.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0644)));
    if (::flock(fd_.get(), LOCK_EX | LOCK_NB) < 0) {
      if (errno != EWOULDBLOCK) check("flock " + file.string(), -1);
      throw std::runtime_error(role + " of node " + paths.node + " is already running (pid " +
                               content(fd_.get()) + "): stop it first");
    }
  } while (!is_still(fd_.get(), file));
  write_pid(fd_.get(), file);
}

}  // namespace tcpmig::sys
