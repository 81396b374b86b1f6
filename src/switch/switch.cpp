// SPDX-License-Identifier: MIT
#include "switch/switch.hpp"

#include "switch/steering.hpp"

namespace tcpmig::steering {

void up(const config::Config& config, const config::Switch& self) {
  const sys::RoleLock lock(config.paths(self.name), "switch");
  Steering(config, self).up();
}

void down(const config::Config& config, const config::Switch& self) {
  const sys::RolePaths paths = config.paths(self.name);
  const sys::RoleLock lock(paths, "switch");
  Steering(config, self).down();
  sys::remove_traces(paths, "switch");
}

}  // namespace tcpmig::steering
