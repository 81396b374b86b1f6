// SPDX-License-Identifier: MIT
#pragma once
#include <chrono>
#include <cstdint>
#include <map>

#include "config/config.hpp"
#include "switch/health.hpp"

namespace tcpmig::steering {

class Reaper;
class Steering;

/// Follows the heartbeats of the nodes (map `liveness`, written by the programs): takes dispatchers out of Maglev's table and in
/// again, and ends the connections of those that have died.
class DispatcherWatch {
 public:
  DispatcherWatch(const config::Config& config, Steering& steering, Reaper& reaper);

  static constexpr std::chrono::milliseconds kTick{100};
  /// Looks once; to be called every kTick.
  void look();
  /// It is in Maglev's table: new clients are sent to it.
  [[nodiscard]] bool gets_clients(config::NodeId dispatcher) const {
    return choice_.chosen.contains(dispatcher);
  }

 private:
  /// What is known of one dispatcher.
  struct Watched {
    Health health = Health::kUnknown;
    bool let_go = false;         ///< its clients were ended since it died
    std::uint64_t since_ns = 0;  ///< of the instance whose predecessor's clients were ended
  };
  void note(const config::Node& node, Watched& watched, Health health) const;
  void end_clients(const config::Node& node, Watched& watched, const abi::node_liveness& liveness,
                   std::uint64_t now_ns);

  const config::Config& config_;
  Steering& steering_;
  Reaper& reaper_;
  std::uint64_t started_ns_;
  std::map<config::NodeId, Watched> watched_;
  DispatcherChoice choice_;
};

}  // namespace tcpmig::steering
