// SPDX-License-Identifier: MIT
#pragma once
#include <filesystem>
#include <string>
#include <vector>

#include "config/config.hpp"
#include "handover/handover.h"

/// Programs that take migrated connections in although the kernel has no kernel resume.
namespace tcpmig::exec {

/// Where the agent of this node is asked, and where its tickets come from.
handover_place place_of(const config::Config& config, const config::Node& self);
/// The same as a text for HANDOVER_ENVIRONMENT.
std::string place_text(const config::Config& config, const config::Node& self);

/// libtcpmig-preload.so: beside this program, or where it is installed. Throws sys::NotFound.
std::filesystem::path preload_library();

/// Becomes the program, with the library before its C library. Returns only by throwing: sys::NotFound, sys::WrongSetup where the library
/// would do nothing (why_no_preload()), std::system_error.
void become(const config::Config& config, const config::Node& self,
            const std::vector<std::string>& command);

}  // namespace tcpmig::exec
