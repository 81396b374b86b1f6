// SPDX-License-Identifier: MIT
#pragma once
#include <filesystem>
#include <string>

#include "sys/unique_fd.hpp"

namespace tcpmig::sys {

/// Where one role of one node keeps its run-time state.
struct RolePaths {
  std::string instance;  ///< lab name, or "default"
  std::string node;
  /// /sys/fs/bpf/tcpmig/<instance>/<node>/<role>, each dot as a colon (bpffs refuses names with dots)
  [[nodiscard]] std::filesystem::path pins(const std::string& role) const;
  /// /run/tcpmig/<instance>/<node>/
  [[nodiscard]] std::filesystem::path run() const;
  /// run()/<role>.sock: a Unix stream socket on which a running role answers one JSON document a connection (status)
  [[nodiscard]] std::filesystem::path socket(const std::string& role) const;
  /// run()/<role>.ledger.json
  [[nodiscard]] std::filesystem::path ledger(const std::string& role) const;
};

/// flock on run()/<role>.lock, with the pid inside: a second start of the same role says
/// "dispatcher of node dispatcher1 is already running (pid 123): stop it first". Throws std::runtime_error then.
class RoleLock {
 public:
  RoleLock(const RolePaths& paths, const std::string& role);

 private:
  UniqueFd fd_;
};

}  // namespace tcpmig::sys
