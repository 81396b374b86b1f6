// SPDX-License-Identifier: MIT
#pragma once
#include <toml++/toml.h>

#include "config/draft.hpp"

namespace tcpmig::config {

/// Reads every table of the file, each key on its own merits.
Draft read_sections(const toml::table& file, Problems& problems);

}  // namespace tcpmig::config
