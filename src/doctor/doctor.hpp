// SPDX-License-Identifier: MIT
#pragma once
#include <string>
#include <vector>

/// What this kernel and this machine have of that which tcpmig relies on (docs/kernel-notes.md), found by trying, never by version.
namespace tcpmig::doctor {

enum class Verdict {
  kOk,
  kWorksAround,  ///< it is not there, and tcpmig does without, at a cost
  kMissing,      ///< it is not there, and something does not work
  kNotRun,       ///< the rights to try it are missing
};
/// "ok", "works around", "missing", "not run"
std::string to_string(Verdict verdict);

enum Role : unsigned { kLibrary = 1, kAgent = 2, kDispatcher = 4, kSwitch = 8, kEverything = 15 };

struct Finding {
  std::string name;
  unsigned roles = 0;  ///< those that rely on it
  Verdict verdict = Verdict::kNotRun;
  std::string detail;  ///< what was found
  std::string cost;    ///< what it costs not to have it
  std::string fix;     ///< what to do
};

/// Runs every check that one of `roles` relies on, in a process and (but for what it only looks at) a network namespace of their own, which
/// are gone whatever ends first: no name, no pin, no interface of this machine. A cgroup is made and removed; one that a killed doctor
/// has left is removed, too. Without root fewer checks run; those that do use a user namespace where the system lets one be made. The calling
/// process must have no other threads. Throws std::system_error when it cannot start.
std::vector<Finding> examine(unsigned roles = kEverything);

}  // namespace tcpmig::doctor
