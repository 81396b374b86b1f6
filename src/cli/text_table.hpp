// SPDX-License-Identifier: MIT
#pragma once
#include <cstdint>
#include <string>
#include <vector>

namespace tcpmig::cli {

/// Rows as aligned columns, two spaces between them; columns of numbers (below the heading, which
/// is row 0) to the right.
std::string aligned(const std::vector<std::vector<std::string>>& rows,
                    const std::string& indent = "");

std::string human_bytes(std::uint64_t bytes);  ///< "512", "1.2k", "3.4M"
std::string human_seconds(double seconds);     ///< "0.3s", "12s", "4m05s", "3h10m", "2d04h"

}  // namespace tcpmig::cli
