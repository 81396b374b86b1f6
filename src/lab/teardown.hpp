// SPDX-License-Identifier: MIT
#pragma once
#include <string>
#include <vector>

namespace tcpmig::lab {

/// Removes everything that belongs to a lab, whoever made it and however far it came: processes of
/// the roles and whatever else runs in its namespaces, namespaces, pins, cgroups, state. The caller
/// holds the NameLock. True: there was something. Throws at the end when something would not go,
/// having gone on with the rest.
bool tear_down(const std::string& lab);

/// What is left of a lab, one line each ("namespace tcpmig-lab-server1"): for tests and for
/// messages.
std::vector<std::string> leftovers(const std::string& lab);

}  // namespace tcpmig::lab
