// SPDX-License-Identifier: MIT
#pragma once
#include <cstdint>
#include <filesystem>
#include <string>

/// Configurations of the stock programs: what somebody who wants them to be fast would write. The same for all sizes.
namespace tcpmig::bench {

/// Ports of the proxies, by what becomes of the connection to the server after an answer.
enum : std::uint16_t {
  kHaproxyClose = 8001,
  kHaproxyKeep = 8002,
  kHaproxyMini = 8003,
  kNginxClose = 8101,
  kNginxKeep = 8102,
  kNginxMini = 8103
};

/// `workers` 0: one for each core.
std::string nginx_origin(const std::filesystem::path& documents, unsigned workers = 0);
std::string haproxy_config(const std::string& own, const std::string& server);
std::string nginx_proxy(const std::string& own, const std::string& server);

}  // namespace tcpmig::bench
