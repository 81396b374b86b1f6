// SPDX-License-Identifier: MIT
#pragma once
#include <sys/types.h>

#include <cstdint>
#include <vector>

#include "sys/unique_fd.hpp"

namespace tcpmig::sys {

/// A second descriptor of what `fd` is in process `pid` (pidfd_open(2), pidfd_getfd(2): Linux 5.6): the same open file, of which that process
/// notices nothing. Takes the right to trace the process (ptrace(2), "Ptrace access mode checking"). Throws NotFound (no such process or
/// descriptor), MissingFeature (the right, the system call), std::system_error.
UniqueFd copy_descriptor(pid_t pid, int fd);

/// The inode that a descriptor of this process stands for.
std::uint64_t inode_of(int fd);
/// The processes that have a socket open, this one left out. Others' descriptors are seen with the right to trace them only.
std::vector<pid_t> processes_with_socket(std::uint64_t inode);

}  // namespace tcpmig::sys
