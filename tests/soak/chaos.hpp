// SPDX-License-Identifier: MIT
#pragma once
#include <chrono>
#include <cstdint>
#include <map>
#include <mutex>
#include <optional>
#include <random>
#include <string>
#include <vector>

#include "lab/lab.hpp"
#include "soak/clients.hpp"

/// Ends roles and starts them again, and remembers when.
namespace tcpmig::soak {

/// From just before a role was ended until it said that it is ready again.
struct Outage {
  std::string node;
  std::string role;
  bool killed = false;  ///< kill -9; else SIGTERM
  Clock::time_point from{}, to{};
};

class Chaos {
 public:
  Chaos(const lab::Lab& lab, std::string program, std::uint64_t seed);
  /// Ends one role or two, pauses, starts them again, returns when they are ready. `before` is called
  /// with each node that is about to be ended.
  void strike(const std::function<void(const std::string&)>& before);
  /// How long to leave them alone until the next one.
  std::chrono::milliseconds next_pause();
  /// The first outage of this node that touches the time; also one that is not over.
  [[nodiscard]] std::optional<Outage> outage(const std::string& node, Clock::time_point from,
                                             Clock::time_point to) const;
  [[nodiscard]] std::vector<Outage> outages() const;

 private:
  void end(Outage& outage);
  void start(Outage& outage);
  std::uint64_t draw(std::uint64_t low, std::uint64_t high);

  const lab::Lab& lab_;
  std::string program_;
  std::mt19937_64 random_;
  std::vector<std::string> nodes_;  ///< that run a role
  mutable std::mutex mutex_;
  std::vector<Outage> outages_;
};

}  // namespace tcpmig::soak
