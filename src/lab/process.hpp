// SPDX-License-Identifier: MIT
#pragma once
#include <sys/types.h>

#include <chrono>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "sys/unique_fd.hpp"

/// Processes: started in a namespace, named so that a reused pid is never mistaken for them, ended
/// with a deadline.
namespace tcpmig::lab {

struct Command {
  std::vector<std::string> argv{};
  std::vector<std::pair<std::string, std::string>> environment{};  ///< added to this process's own
  int netns_fd = -1;
  int input = -1, output = -1, error = -1;  ///< -1: inherited
  bool own_session = false;                 ///< setsid(): survives the caller and its terminal
  int death_signal = 0;                     ///< sent to it when the calling thread ends
};

/// fork, setns(CLONE_NEWNET), exec. Throws std::system_error when the program cannot be started
/// ("cannot run NAME").
pid_t start(const Command& command);
/// Waits for a child; its exit code, or 128 + signal.
int wait_for(pid_t child);
/// Exit code if the child has ended (and reaps it).
std::optional<int> poll_exit(pid_t child);

/// Which process a pid meant when it was written down.
struct ProcessId {
  pid_t pid = 0;
  std::uint64_t start_time = 0;  ///< clock ticks since boot, /proc/PID/stat field 22
  std::string program;           ///< /proc/PID/exe
  bool operator==(const ProcessId&) const = default;
};
/// nullopt: no such process, or a zombie.
std::optional<ProcessId> identify(pid_t pid);
bool is_alive(const ProcessId& process);

/// All processes (except this one and its ancestors) whose network namespace is the one of this
/// name.
std::vector<ProcessId> processes_in(const std::string& netns);

/// SIGTERM, up to `grace`, SIGKILL, up to two seconds more. By pidfd, after a check that the pid
/// still means the same process. Returns those that are alive even then.
std::vector<ProcessId> terminate(const std::vector<ProcessId>& processes,
                                 std::chrono::milliseconds grace);

/// Calls `done` until it says yes or the time is over (false); between calls it waits for `step`.
bool wait_until(std::chrono::milliseconds deadline, const std::function<bool()>& done,
                std::chrono::milliseconds step = std::chrono::milliseconds(20));

/// Last lines of a file, for error messages.
std::string tail(const std::filesystem::path& file, unsigned lines);

}  // namespace tcpmig::lab
