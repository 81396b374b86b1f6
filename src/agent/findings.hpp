// SPDX-License-Identifier: MIT
#pragma once
#include "agent/agent.hpp"

namespace tcpmig::agent {

// What a server needs of its kernel, whatever the configuration says.
Finding btf();
Finding syncookies();
/// Of "tcp_timestamps", "tcp_sack", "tcp_window_scaling". `what`: the option in words.
Finding tcp_option(const std::string& name, const std::string& what);
Finding sock_destroy();
/// By loading the program, which takes rights: `has_rights`.
Finding kfunc(bool has_rights);

/// check() without the kfunc, which is probed by loading: what a running agent looks at when it starts.
std::vector<Finding> host_findings(const config::Config& config, const config::Node& self);

}  // namespace tcpmig::agent
