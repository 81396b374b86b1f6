// SPDX-License-Identifier: MIT
#pragma once
#include <string>

#include <nlohmann/json_fwd.hpp>
#include <tcpmig/snapshot.hpp>

namespace tcpmig::cli {

/// Everything that a snapshot says, in words.
std::string to_text(const Snapshot& snapshot);
/// The same; queues as their length and, in hexadecimal, their first 64 bytes.
nlohmann::json to_json(const Snapshot& snapshot);
/// "ESTABLISHED 10.0.0.1:80 <- 10.0.0.2:4242, 12 bytes received, none sent, 3k not sent"
std::string headline(const Snapshot& snapshot);

}  // namespace tcpmig::cli
