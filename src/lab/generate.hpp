// SPDX-License-Identifier: MIT
#pragma once
#include <string>

#include "lab/plan.hpp"

namespace tcpmig::lab {

struct LabConfig {
  std::string text;  ///< for /run/tcpmig/NAME/tcpmig.toml
  config::Config config;
};

/// The lab's service "web" as TOML: both VIPs, port 80. Its routes may follow.
std::string web_service();

/// The lab's tcpmig.toml, checked: nodes from the plan; services, routes, pools, limits and timeouts
/// from the options' file or text, or one service "web" whose pool is all servers. Lines of the
/// user's file keep their numbers, so that what is wrong in it is reported where it is; sections of it
/// that a lab makes itself are ignored with a warning. Throws std::invalid_argument with all
/// problems, one a line.
LabConfig make_config(const Plan& plan, const Options& options);

}  // namespace tcpmig::lab
