// SPDX-License-Identifier: MIT
#pragma once

namespace tcpmig::sys {

/// Whether this thread has a capability (CAP_NET_ADMIN, ..: <linux/capability.h>) in effect.
bool has_capability(unsigned capability);

}  // namespace tcpmig::sys
