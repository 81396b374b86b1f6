// SPDX-License-Identifier: MIT
#pragma once
#include <chrono>
#include <string>
#include <vector>

#include "sys/address.hpp"

/// Clients that open connections at a fixed rate, whatever becomes of those before; or so many at a time.
///
/// With a rate, arrivals are a Poisson process whose times are drawn before the run, and a request's time begins when it was due, not
/// when this program came to it: what a slow server makes wait is counted (no coordinated omission).
namespace tcpmig::bench {

class ClientPorts;

struct LoadPlan {
  std::string netns;
  ClientPorts* ports = nullptr;
  std::vector<sys::Endpoint> targets;  ///< in turns
  std::string request;                 ///< with "Connection: close"
  double rate = 0;                     ///< arrivals a second; 0: a closed loop
  unsigned in_flight = 8;  ///< of a closed loop; with a rate: at most so many, more are failures
  std::chrono::milliseconds length{2000};
  std::chrono::milliseconds patience{1000};  ///< what takes longer is given up, and is no goodput
};

struct LoadResult {
  std::uint64_t begun = 0, good = 0, late = 0, failed = 0;  ///< late: given up
  std::vector<double> latency_us;                           ///< of the good ones
  double seconds = 0;   ///< of arrivals; of a closed loop: until the last one
  double lag_us = 0;    ///< by which the latest arrival was behind its time
  std::string failure;  ///< the first, in words
  [[nodiscard]] double goodput() const { return static_cast<double>(good) / seconds; }
};

LoadResult generate(const LoadPlan& plan);

}  // namespace tcpmig::bench
