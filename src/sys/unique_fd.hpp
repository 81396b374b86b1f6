// SPDX-License-Identifier: MIT
#pragma once
#include <tcpmig/unique_fd.hpp>

namespace tcpmig::sys {
using tcpmig::UniqueFd;
}  // namespace tcpmig::sys
