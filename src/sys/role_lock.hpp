// SPDX-License-Identifier: MIT
#pragma once
#include <filesystem>
#include <optional>
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
  /// run()/exec.sock: where programs ask an agent for their connections (handover/handover.h)
  [[nodiscard]] std::filesystem::path handover_socket() const;
  /// run()/departures: what an agent must know after a crash of connections that it was giving away
  [[nodiscard]] std::filesystem::path departures() const;
  /// run()/<role>.ledger.json
  [[nodiscard]] std::filesystem::path ledger(const std::string& role) const;
};

/// An exclusive flock on a file, which is made if need be; nullopt: somebody else holds it. True to its name also where the file
/// was removed by its last holder in the meantime.
std::optional<UniqueFd> try_lock(const std::filesystem::path& file);

/// flock on run()/<role>.lock, with the pid inside: a second start of the same role says
/// "dispatcher of node dispatcher1 is already running (pid 123): stop it first". Throws AlreadyRunning then.
class RoleLock {
 public:
  RoleLock(const RolePaths& paths, const std::string& role);

 private:
  UniqueFd fd_;
};

/// The end of a role's `down`, under its lock: its socket (left by a crash), its lock file, and the directories of the node
/// and of the instance, here and in bpffs, as far as nobody else uses them.
void remove_traces(const RolePaths& paths, const std::string& role);

}  // namespace tcpmig::sys
