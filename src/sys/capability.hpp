// SPDX-License-Identifier: MIT
#pragma once

namespace tcpmig::sys {

/// Whether this thread has a capability (CAP_NET_ADMIN, ..: <linux/capability.h>) in effect.
bool has_capability(unsigned capability);
/// From now on this thread, and every one that it makes, has this capability and no other, and no program that it executes gets more
/// (no_new_privs, and the bounding set as far as CAP_SETPCAP is there). Throws std::system_error.
void keep_only_capability(unsigned capability);

}  // namespace tcpmig::sys
