// SPDX-License-Identifier: MIT
#pragma once
#include "lab/state.hpp"

namespace tcpmig::lab {

/// Starts `switch run`, the dispatchers and the agents, each in its node; every one is written into
/// `state` (and its file) as it starts.
void start_roles(State& state);
/// Returns when all of them say "ready" on their status sockets. Throws with the end of the log of
/// the one that has failed.
void wait_until_ready(const State& state);

}  // namespace tcpmig::lab
