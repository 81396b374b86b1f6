// SPDX-License-Identifier: MIT
#pragma once
#include <optional>
#include <string>
#include <vector>

#include <nlohmann/json_fwd.hpp>

#include "config/config.hpp"
#include "shared/flow.h"

/// The role "switch": loads, pins and attaches the steering programs, fills their maps from the
/// configuration, keeps them right.
namespace tcpmig::steering {

/// Loads the programs (or adopts pinned maps), fills vips/services/nodes/keys/maglev/settings, sets
/// routes (each node's VPA block via the node, each VIP via the first dispatcher, so that the
/// kernel can answer TTL and MTU) and sysctls (forwarding on, rp_filter off on its interfaces)
/// through the ledger, and attaches. Idempotent: run again it brings everything in line with the
/// configuration and removes what it no longer names. Live flows survive. Throws with one clear
/// sentence when something is missing; what was done so far is then undone unless it was up before.
void up(const config::Config& config, const config::Switch& self);
/// Detaches and gives everything back (pins, routes, sysctls). Idempotent, also after a crash.
void down(const config::Config& config, const config::Switch& self);
/// up(), then stays: re-attaches what somebody removed, follows neighbours and interfaces, sweeps
/// dead flows, answers status on the role's socket, until SIGTERM or SIGINT (the programs stay
/// attached then). Returns the exit code.
int run(const config::Config& config, const config::Switch& self);

/// Counters, nodes, services, totals from the pinned maps. Works while no process runs.
nlohmann::json status(const config::Config& config, const config::Switch& self);

/// One owned flow, in words.
struct FlowRow {
  abi::flow_key key;
  abi::flow_value value;
};
/// All entries of the pinned flow table, dead ones left out unless asked for.
std::vector<FlowRow> flows(const config::Config& config, const config::Switch& self,
                           bool with_dead = false);

}  // namespace tcpmig::steering
