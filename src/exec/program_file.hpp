// SPDX-License-Identifier: MIT
#pragma once
#include <filesystem>
#include <string>

namespace tcpmig::exec {

/// Where execvp() finds it. Throws sys::NotFound.
std::filesystem::path find_program(const std::string& name);

/// Why a library cannot be put before the C library of this program, as a sentence with what to do; empty: it can. Follows "#!". Reads the
/// ELF header, so it says nothing of what only shows at run time (a program that makes system calls by itself).
std::string why_no_preload(const std::filesystem::path& program);

}  // namespace tcpmig::exec
