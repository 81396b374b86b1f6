// SPDX-License-Identifier: MIT
#pragma once
#include <string>
#include <vector>

#include "config/config.hpp"

namespace tcpmig::steering {

/// Name of an interface's driver as ETHTOOL_GDRVINFO says it, in this thread's network namespace;
/// empty when it has none to say.
std::string driver_of(const std::string& interface);

/// Declared interfaces, those towards clients first.
std::vector<std::string> interfaces(const config::Switch& self);

/// What to try first. kTc and kXdp are obeyed. kAuto: tc when one of the interfaces is a veth (tc
/// keeps GSO packets whole there, native XDP splits them), else XDP; whether the drivers can do it
/// is found by attaching (then tc after all).
config::Datapath preferred(const config::Switch& self, const std::vector<std::string>& drivers);

std::string to_string(config::Datapath datapath);

}  // namespace tcpmig::steering
