// SPDX-License-Identifier: MIT
#pragma once
#include <chrono>
#include <cstddef>
#include <cstdint>

#include "config/config.hpp"
#include "shared/flow.h"

namespace tcpmig::steering {

class Programs;

/// CLOCK_MONOTONIC in ns: the clock of every time in a flow entry (bpf_ktime_get_ns).
std::uint64_t monotonic_ns();
/// A time of the configuration in the unit of the maps.
std::uint64_t nanoseconds(std::chrono::milliseconds time);
/// The client has sent RST in the present generation, and no RENEW of the owner has contradicted it.
bool has_client_rst(const abi::flow_value& flow);

/// As the data plane sees it (flow_is_dead() in bpf/switch_core_flow.h): ended, closed for longer
/// than `closing`, or silent for longer than its lease.
bool is_dead(const abi::flow_value& flow, const config::Timeouts& timeouts, std::uint64_t now_ns);
/// Closing by the owner's word in its present generation, dead or not.
bool is_closing(const abi::flow_value& flow);

/// Removes entries that have been dead for so long that no COMMIT of theirs can still be under way
/// (while it is there, an entry refuses what is older), through the data plane's own program: a
/// COMMIT may bring an entry back to life at any moment. Returns how many went.
std::size_t sweep_flows(const Programs& programs, const config::Timeouts& timeouts);

}  // namespace tcpmig::steering
