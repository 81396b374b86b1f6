// SPDX-License-Identifier: MIT
#pragma once
#include "config/config.hpp"

/// The role "dispatcher": accepts, reads the request head, chooses a server, freezes, transfers.
namespace tcpmig::dispatcher {

/// Runs until SIGTERM or SIGINT; returns the exit code. Throws with one clear sentence when it cannot start.
int run(const config::Config& config, const config::Node& self);

}  // namespace tcpmig::dispatcher
