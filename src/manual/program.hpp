// SPDX-License-Identifier: MIT
#pragma once
#include <string>
#include <vector>

namespace tcpmig::manual {

/// Throws sys::NotFound where there is no such program, sys::WrongSetup where the kernel does not execute it: tried by a child that is
/// stopped before the program's first instruction (ptrace(2), PTRACE_TRACEME) and killed.
void require_executable(const std::vector<std::string>& command);
/// In the place of this process. Comes back by std::system_error only.
[[noreturn]] void execute(const std::vector<std::string>& command);

}  // namespace tcpmig::manual
