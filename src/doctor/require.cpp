// SPDX-License-Identifier: MIT
#include "doctor/checks.hpp"

namespace tcpmig::doctor {

void require(bool condition, const std::string& what) {
  if (!condition) throw Lacking(what);
}

}  // namespace tcpmig::doctor
