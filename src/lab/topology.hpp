// SPDX-License-Identifier: MIT
#pragma once
#include "lab/plan.hpp"

namespace tcpmig::lab {

/// Makes namespaces, bridges, veth pairs, addresses and default routes of a plan. Not undone on
/// failure: down() does that, by the names.
void build_topology(const Plan& plan);

}  // namespace tcpmig::lab
