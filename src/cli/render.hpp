// SPDX-License-Identifier: MIT
#pragma once
#include <string>

#include <nlohmann/json_fwd.hpp>

namespace tcpmig::cli {

/// A role's status document for people: one headline, plain values, tables, counters that are not
/// zero.
std::string render_status(const nlohmann::json& document);

}  // namespace tcpmig::cli
