// SPDX-License-Identifier: MIT
#pragma once
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "lab/plan.hpp"
#include "lab/process.hpp"

/// What is written down of a lab, so that another process finds it, also after kill -9.
namespace tcpmig::lab {

/// A process of a role: which node, what it is.
struct RoleProcess {
  std::string node;
  std::string role;  ///< switch, dispatcher, agent, impair
  ProcessId process;
};

/// /run/tcpmig/NAME/lab.json. It is there, with all nodes in it, before the first namespace is
/// made, and is the last thing removed: whatever a crash leaves, this file or the fabric's
/// namespace tells that there is something.
struct State {
  std::string name;
  bool ready = false;   ///< up() has come to its end
  std::string program;  ///< the tcpmig program that runs the roles
  std::vector<Node> nodes;
  std::vector<RoleProcess> processes;
  std::string impairment{};  ///< as `--impair` takes it; empty: none
};

void write_state(const State& state);  ///< replaced by rename
/// nullopt: no such file, or one that cannot be read as state.
std::optional<State> read_state(const std::string& lab);

/// flock on /run/tcpmig/NAME.lock: one up or down of a lab at a time. The file goes when the lock
/// is given back.
class NameLock {
 public:
  /// Waits up to ten seconds for another up or down to end, then throws.
  explicit NameLock(const std::string& lab);
  ~NameLock();
  NameLock(const NameLock&) = delete;
  NameLock& operator=(const NameLock&) = delete;

 private:
  std::filesystem::path path_;
  sys::UniqueFd fd_;
};

}  // namespace tcpmig::lab
