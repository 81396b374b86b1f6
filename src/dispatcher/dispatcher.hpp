// SPDX-License-Identifier: MIT
#pragma once
#include <string>

#include "config/config.hpp"

/// The role "dispatcher": accepts, reads the request head, chooses a server, freezes, transfers.
namespace tcpmig::dispatcher {

/// Runs until SIGTERM or SIGINT; returns the exit code. Throws with one clear sentence when it cannot start.
int run(const config::Config& config, const config::Node& self);

/// Gives back what a dispatcher that was killed has left: routes, rule, sysctls, its cgroup. Idempotent. A dispatcher that ends
/// by itself does the same.
void down(const config::Config& config, const config::Node& self);

/// The cgroup that a dispatcher makes for itself.
std::string cgroup_name(const config::Config& config, const config::Node& self);

}  // namespace tcpmig::dispatcher
