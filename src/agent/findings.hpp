// SPDX-License-Identifier: MIT
#pragma once
#include "agent/agent.hpp"

namespace tcpmig::agent {

/// check() without the kfunc, which is probed by loading: what a running agent looks at when it starts.
std::vector<Finding> host_findings(const config::Config& config, const config::Node& self);

}  // namespace tcpmig::agent
