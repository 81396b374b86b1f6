// SPDX-License-Identifier: MIT
#pragma once
#include <string>

#include "lab/plan.hpp"

namespace tcpmig::lab {

/// The lab's tcpmig.toml: nodes from the plan; services, routes, pools, limits and timeouts from
/// `config_file`, or one service "web" whose pool is all servers. Lines of `config_file` keep their
/// numbers, so that what is wrong in it is reported where it is. Throws std::runtime_error when the
/// file cannot be read.
std::string generate_config(const Plan& plan, const std::filesystem::path& config_file);

/// generate_config(), checked. Throws std::invalid_argument with all problems, one a line.
config::Config check_config(const Plan& plan, const std::filesystem::path& config_file);

}  // namespace tcpmig::lab
