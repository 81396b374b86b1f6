// SPDX-License-Identifier: MIT
#include "sys/netns.hpp"

#include <fcntl.h>
#include <sched.h>
#include <sys/file.h>
#include <sys/mount.h>

#include <exception>
#include <future>
#include <stdexcept>

#include "sys/check.hpp"
#include "sys/netlink.hpp"

namespace tcpmig::sys {
namespace {

const std::filesystem::path kDirectory = "/run/netns";

/// Of the calling thread; /proc/self would be that of the process's first thread.
constexpr const char* kThreadNetns = "/proc/thread-self/ns/net";

std::filesystem::path file_of(const std::string& name) {
  if (name.empty() || name == "." || name == ".." || name.find('/') != std::string::npos)
    throw std::invalid_argument("'" + name + "' cannot be the name of a network namespace");
  return kDirectory / name;
}

UniqueFd open_namespace(const std::string& path) {
  return UniqueFd(
      check("open network namespace " + path, ::open(path.c_str(), O_RDONLY | O_CLOEXEC)));
}

void enter(int netns_fd) { check("setns to a network namespace", ::setns(netns_fd, CLONE_NEWNET)); }

/// Makes /run/netns a shared mount, as iproute2 does, so that a namespace mounted in one mount
/// namespace is seen, and can be removed, in all. Under a lock on the directory (iproute2's too),
/// so that it is not mounted over itself twice.
void share_directory() {
  std::filesystem::create_directories(kDirectory);
  const UniqueFd lock(check("open " + kDirectory.string(),
                            ::open(kDirectory.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC)));
  check("flock " + kDirectory.string(), ::flock(lock.get(), LOCK_EX));
  const char* directory = kDirectory.c_str();
  if (::mount("", directory, "none", MS_SHARED | MS_REC, nullptr) == 0) return;
  if (errno != EINVAL) check("make " + kDirectory.string() + " a shared mount", -1);
  check("mount " + kDirectory.string() + " on itself",
        ::mount(directory, directory, "none", MS_BIND | MS_REC, nullptr));
  check("make " + kDirectory.string() + " a shared mount",
        ::mount("", directory, "none", MS_SHARED | MS_REC, nullptr));
}

/// In a thread of its own, which leaves its network namespace for ever.
void unshare_and_mount(const std::filesystem::path& file) {
  check("unshare the network namespace", ::unshare(CLONE_NEWNET));
  Netlink().set_link("lo", true);
  check("mount network namespace " + file.string(),
        ::mount(kThreadNetns, file.c_str(), "none", MS_BIND, nullptr));
}

}  // namespace

UniqueFd current_netns() { return open_namespace(kThreadNetns); }

void create_netns(const std::string& name) {
  const std::filesystem::path file = file_of(name);
  share_directory();
  const int flags = O_RDONLY | O_CREAT | O_EXCL | O_CLOEXEC;
  const UniqueFd place_to_mount(check("create " + file.string(), ::open(file.c_str(), flags, 0)));
  try {
    std::async(std::launch::async, unshare_and_mount, file).get();
  } catch (...) {
    ::unlink(file.c_str());
    throw;
  }
}

bool remove_netns(const std::string& name) {
  const std::filesystem::path file = file_of(name);
  // A file without a mount (EINVAL) is what a killed create_netns() leaves.
  while (::umount2(file.c_str(), MNT_DETACH | UMOUNT_NOFOLLOW) == 0) {
  }
  if (errno == ENOENT) return false;
  if (errno != EINVAL) check("unmount " + file.string(), -1);
  check("remove " + file.string(), ::unlink(file.c_str()));
  return true;
}

UniqueFd open_netns(const std::string& name) { return open_namespace(file_of(name)); }

EnterNetns::EnterNetns(int netns_fd) : previous_(current_netns()) { enter(netns_fd); }

EnterNetns::EnterNetns(const std::string& name) : EnterNetns(open_netns(name).get()) {}

EnterNetns::~EnterNetns() {
  // To go on in the wrong network namespace would change the wrong host.
  if (::setns(previous_.get(), CLONE_NEWNET) < 0) std::terminate();
}

}  // namespace tcpmig::sys
