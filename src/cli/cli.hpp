// SPDX-License-Identifier: MIT
#pragma once

namespace tcpmig::cli {

/// The whole program: parses the command line, runs the sub-command, prints one clear line on
/// failure. Exit codes: 0 done; 1 failed; 2 wrong usage or configuration; 3 a right or kernel
/// feature is missing; 4 already running; 5 not found.
int run(int argc, char** argv) noexcept;

}  // namespace tcpmig::cli
