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
  std::error_code ignored;
  std::filesystem::remove(paths.socket("switch"), ignored);  // left by a crash
  std::filesystem::remove(paths.run() / "switch.lock",
                          ignored);  // ours: whoever waits for it looks again
  std::filesystem::remove(paths.run(), ignored);
  std::filesystem::remove(paths.run().parent_path(), ignored);
}

}  // namespace tcpmig::steering
