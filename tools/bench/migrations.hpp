// SPDX-License-Identifier: MIT
#pragma once
#include <atomic>
#include <cstdint>
#include <memory>
#include <string>

#include "benchmark.hpp"
#include "lab/payload.hpp"
#include "stage.hpp"
#include "sys/unique_fd.hpp"

namespace tcpmig::bench {

/// Two servers whose programs, both in this process, take whole connections: the first gives each of its own to the second.
class Migrations {
 public:
  Migrations(const Plan& plan, const std::string& name);

  /// Microseconds from the call of migrate() with so many bytes of state to the return of take_any_connection() at the other server.
  [[nodiscard]] double once(std::size_t state);

 private:
  [[nodiscard]] std::string handoff(const std::string& node) const;
  [[nodiscard]] std::string config() const;

  lab::TemporaryDirectory directory_{"tcpmig-bench"};
  BenchLab lab_;
  ClientPorts ports_;
  sys::UniqueFd first_, second_;  ///< the sockets at which the agents bring connections
};

}  // namespace tcpmig::bench
