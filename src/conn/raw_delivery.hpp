// SPDX-License-Identifier: MIT
#pragma once
#include <tcpmig/resume.hpp>

namespace tcpmig::conn {
using tcpmig::raw_delivery;
}  // namespace tcpmig::conn
