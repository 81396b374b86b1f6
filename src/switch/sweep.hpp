// SPDX-License-Identifier: MIT
#pragma once
#include <cstddef>
#include <cstdint>

#include "config/config.hpp"
#include "shared/flow.h"

namespace tcpmig::steering {

class Programs;

/// CLOCK_MONOTONIC in ns: the clock of every time in a flow entry (bpf_ktime_get_ns).
std::uint64_t monotonic_ns();

/// As the data plane sees it (flow_is_dead() in bpf/switch_core_flow.h): ended, closed for longer
/// than `closing`, or silent for longer than its lease.
bool is_dead(const abi::flow_value& flow, const config::Timeouts& timeouts, std::uint64_t now_ns);
/// Closing by the owner's word in its present generation, dead or not.
bool is_closing(const abi::flow_value& flow);

/// Removes entries that have been dead for twice the closing time, through the data plane's own
/// program: a COMMIT may bring an entry back to life at any moment. Returns how many went.
std::size_t sweep_flows(const Programs& programs, const config::Timeouts& timeouts);

}  // namespace tcpmig::steering
