// SPDX-License-Identifier: MIT
#pragma once
#include <string>

#include "lab/state.hpp"

namespace tcpmig::lab {

/// Which of tcpmig's roles a node runs; empty: none.
std::string role_of(const Node& node);
/// Starts `switch run`, the dispatchers and the agents, each in its node; every one is written into
/// `state` (and its file) as it starts.
void start_roles(State& state);
/// Returns when all of them say "ready" on their status sockets, and the switch sends clients to every
/// dispatcher. Throws with the end of the log of the one that has failed.
void wait_until_ready(const State& state);

}  // namespace tcpmig::lab
