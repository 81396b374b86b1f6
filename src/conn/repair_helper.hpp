// SPDX-License-Identifier: MIT
#pragma once
#include <chrono>

#include "conn/repair_request.hpp"

/// The library's side of `tcpmig repair-helper` (src/helper).
namespace tcpmig::conn {

/// How long a helper that is not there, or has no time, is waited for: it may be starting again.
constexpr std::chrono::milliseconds kHelperPatience{300};
/// The same where a connection could not go on without it.
constexpr std::chrono::milliseconds kLongHelperPatience{3000};

/// set_repair_helper() has named one.
bool has_repair_helper();
/// Lets the helper do this with the socket `fd`. Throws std::system_error with its errno, or where there is no helper or it does not answer; `what`: the
/// attempt that the kernel has refused.
void ask_helper(const RepairRequest& request, int fd, const char* what,
                std::chrono::milliseconds patience = kHelperPatience);

/// A number of level SOL_SOCKET that takes CAP_NET_ADMIN: set here, or by a helper where the kernel says EPERM and the socket has another value.
void set_privileged(int fd, int name, int value, RepairOperation operation, const char* what);

}  // namespace tcpmig::conn
