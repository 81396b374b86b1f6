// SPDX-License-Identifier: MIT
#include <unistd.h>

#include "conn/cgroup.hpp"
#include "dispatcher/dispatcher.hpp"
#include "sys/ledger.hpp"
#include "sys/role_lock.hpp"

namespace tcpmig::dispatcher {

std::string cgroup_name(const config::Config& config, const config::Node& self) {
  return "tcpmig-" + config.instance + "-" + self.name;
}

void down(const config::Config& config, const config::Node& self) {
  const sys::RolePaths paths = config.paths(self.name);
  const sys::RoleLock lock(paths, "dispatcher");
  sys::Netlink netlink;
  sys::Ledger(paths.ledger("dispatcher"), netlink).undo();
  const std::string name = cgroup_name(config, self);
  // One that still has a process in it is not ours: the lock says that no dispatcher runs.
  for (const auto& cgroup : conn::find_cgroups([&](const std::string& n) { return n == name; }))
    ::rmdir(cgroup.c_str());
  sys::remove_traces(paths, "dispatcher");
}

}  // namespace tcpmig::dispatcher
