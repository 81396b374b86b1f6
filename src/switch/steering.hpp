// SPDX-License-Identifier: MIT
#pragma once
#include <chrono>
#include <functional>
#include <map>
#include <optional>
#include <string>

#include "config/config.hpp"
#include "control/keys.hpp"
#include "switch/attachments.hpp"
#include "switch/health.hpp"
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
  /// Of what up() has loaded and filled in.
  [[nodiscard]] int map(const std::string& name) const { return programs_->map(name); }
  [[nodiscard]] const Programs& programs() const { return *programs_; }
  [[nodiscard]] const control::Secret& secret() const noexcept { return secret_; }
  /// Which dispatchers get clients; until then, and after up(), all of them do.
  void use_dispatchers(const DispatcherChoice& choice);
  /// Removes flows that have been dead for long, when it is time. Returns how many.
  std::size_t sweep();

 private:
  void bring_up();
  void use(config::Datapath datapath);
  bool load_and_fill(const Host& host, config::Datapath datapath, int old_flows);
  void forget_boot() const;
  void fill_tables(const Host& host, bool fresh);
  void begin_recovery();
  void attach_all(const Host& host);
  void detach_others(const Host& host);
  void set_routes(const Host& host);
  void repair_route(const sys::Route& route);
  std::string tend_interface(const Host& host, const std::string& interface);
  void attempt(const std::string& whom, const std::function<std::string()>& work);
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
  bool is_fresh_ = false;  ///< the flow table was made by this up()
  std::optional<DispatcherChoice> choice_;
  std::map<std::string, sys::Route> routes_;  ///< by destination
  std::map<std::string, std::string> troubles_;
  std::chrono::steady_clock::time_point next_sweep_{};
};

/// True when pins of the switch are there.
bool is_up(const config::Config& config, const config::Switch& self);

}  // namespace tcpmig::steering
