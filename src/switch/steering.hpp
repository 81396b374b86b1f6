// SPDX-License-Identifier: MIT
#pragma once
#include <chrono>
#include <map>
#include <optional>
#include <string>

#include "config/config.hpp"
#include "control/keys.hpp"
#include "switch/attachments.hpp"
#include "switch/host.hpp"
#include "switch/programs.hpp"
#include "switch/tables.hpp"
#include "sys/ledger.hpp"
#include "sys/netlink.hpp"

namespace tcpmig::steering {

/// The switch of this machine while one process works on it (the caller holds the role's lock).
/// What it makes lives in the kernel: pins, links, routes, sysctls; a new object finds it again.
class Steering {
 public:
  Steering(const config::Config& config, const config::Switch& self);

  /// See steering::up().
  void up();
  /// Gives everything back.
  void down();
  /// Once a second: attaches again what somebody has removed, follows interfaces, addresses and
  /// routes. Logs a change once.
  void tend();
  /// Removes flows that have been dead for long, when it is time. Returns how many.
  std::size_t sweep();

 private:
  void bring_up();
  void use(config::Datapath datapath);
  bool load_and_fill(const Host& host, config::Datapath datapath, int old_flows);
  void fill_tables(const Host& host, bool fresh);
  void attach_all(const Host& host);
  void detach_others(const Host& host);
  void set_routes(const Host& host);
  void repair_routes(const Host& host);
  [[nodiscard]] int program_for(const std::string& interface) const;
  [[nodiscard]] Wanted wanted_now(const Host& host);
  /// Logs `trouble` about `whom` when it differs from the last time; "" = it is well again.
  void note(const std::string& whom, const std::string& trouble);

  const config::Config& config_;
  const config::Switch& self_;
  sys::RolePaths paths_;
  control::Secret secret_;
  sys::Netlink netlink_;
  sys::PinDirectory pins_;
  sys::Ledger ledger_;
  Attachments attachments_;
  std::optional<Programs> programs_;
  std::vector<sys::Route> routes_;
  std::map<std::string, std::string> troubles_;
  std::chrono::steady_clock::time_point next_sweep_{};
};

/// True when pins of the switch are there.
bool is_up(const config::Config& config, const config::Switch& self);

}  // namespace tcpmig::steering
