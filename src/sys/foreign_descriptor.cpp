// SPDX-License-Identifier: MIT
#include "sys/foreign_descriptor.hpp"

#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <charconv>
#include <filesystem>
#include <fstream>
#include <string>

#include "sys/check.hpp"
#include "sys/errors.hpp"

namespace tcpmig::sys {
namespace {

namespace fs = std::filesystem;

/// What stands in the way beside the usual rights.
std::string yama() {
  std::ifstream file("/proc/sys/kernel/yama/ptrace_scope");
  std::string scope;
  if (!(file >> scope) || scope == "0") return "";
  return " (kernel.yama.ptrace_scope is " + scope +
         (scope == "3" ? ": nobody may, until the next boot)" : ": CAP_SYS_PTRACE is needed)");
}

[[noreturn]] void explain_copy(pid_t pid, int fd, int error) {
  const std::string process = "process " + std::to_string(pid);
  if (error == EBADF) throw NotFound(process + " has no descriptor " + std::to_string(fd));
  if (error == ESRCH) throw NotFound(process + " has ended");
  if (error == ENOSYS) throw MissingFeature("this kernel has no pidfd_getfd() (Linux 5.6)");
  if (error == EPERM)
    throw MissingFeature("the descriptors of " + process +
                         " may not be taken: it takes root, or CAP_SYS_PTRACE" + yama());
  throw std::system_error(error, std::generic_category(), "pidfd_getfd of " + process);
}

UniqueFd open_process(pid_t pid) {
  UniqueFd process(static_cast<int>(::syscall(SYS_pidfd_open, pid, 0)));
  if (process) return process;
  if (errno == ESRCH ||
      errno == EINVAL)  // EINVAL: a thread that is no process, or no number of one
    throw NotFound("there is no process " + std::to_string(pid));
  if (errno == ENOSYS) throw MissingFeature("this kernel has no pidfd_open() (Linux 5.3)");
  check("pidfd_open", -1);
  return process;
}

bool has_open(const fs::path& process, const std::string& target) {
  std::error_code gone;  // processes and descriptors come and go while we look
  for (fs::directory_iterator entry(process / "fd", gone), end; !gone && entry != end;
       entry.increment(gone)) {
    std::error_code closed;
    if (fs::read_symlink(entry->path(), closed) == target) return true;
  }
  return false;
}

}  // namespace

UniqueFd copy_descriptor(pid_t pid, int fd) {
  const UniqueFd process = open_process(pid);
  UniqueFd copy(static_cast<int>(::syscall(SYS_pidfd_getfd, process.get(), fd, 0)));
  if (!copy) explain_copy(pid, fd, errno);
  return copy;
}

std::uint64_t inode_of(int fd) {
  struct stat status{};
  check("fstat", ::fstat(fd, &status));
  return status.st_ino;
}

std::vector<pid_t> processes_with_socket(std::uint64_t inode) {
  const std::string target = "socket:[" + std::to_string(inode) + "]";
  std::vector<pid_t> found;
  for (const auto& entry : fs::directory_iterator("/proc")) {
    const std::string name = entry.path().filename();
    pid_t pid = 0;
    const auto [end, error] = std::from_chars(name.data(), name.data() + name.size(), pid);
    if (error != std::errc() || end != name.data() + name.size() || pid == ::getpid()) continue;
    if (has_open(entry.path(), target)) found.push_back(pid);
  }
  return found;
}

}  // namespace tcpmig::sys
