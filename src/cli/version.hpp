// SPDX-License-Identifier: MIT
#pragma once

namespace tcpmig::cli {

inline constexpr const char* kVersion = "0.1.0";  ///< as in CMakeLists.txt (a test compares)

}  // namespace tcpmig::cli
