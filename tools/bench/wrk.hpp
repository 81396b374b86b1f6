// SPDX-License-Identifier: MIT
#pragma once
#include <string>

#include "lab/lab.hpp"

/// wrk, as Debian ships it: a closed loop of so many connections.
namespace tcpmig::bench {

struct WrkPlan {
  std::string node;  ///< where it runs
  sys::Endpoint to;
  std::string path;
  unsigned connections = 8;
  unsigned seconds = 2;
};

struct WrkResult {
  double per_second = 0;
  double requests = 0;
  double errors = 0;  ///< of sockets (connect, read, write, timeout), and answers that were not 2xx
};

WrkResult run_wrk(const lab::Lab& lab, const WrkPlan& plan);

}  // namespace tcpmig::bench
