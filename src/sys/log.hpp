// SPDX-License-Identifier: MIT
#pragma once
#include <string>

namespace tcpmig::sys {

/// spdlog to stderr, each line with time, level and role. The level is info; debug when `verbose`;
/// what TCPMIG_LOG names (trace, debug, info, warning, error, off) goes before both.
void setup_log(const std::string& role, bool verbose);

}  // namespace tcpmig::sys
