// SPDX-License-Identifier: MIT
#pragma once
#include <sys/types.h>

#include <chrono>
#include <string>
#include <vector>

#include "lab/lab.hpp"

/// Other people's programs: where they run, what they cost, what they say.
namespace tcpmig::bench {

/// A process and all its descendants that are alive now.
std::vector<pid_t> with_children(pid_t pid);
/// Time on a processor of all threads of these processes, to the nanosecond (/proc/PID/task/TID/schedstat).
/// Work that the kernel does for them in a softirq counts for whom it interrupted.
std::chrono::nanoseconds cpu_time(const std::vector<pid_t>& processes);
/// Resident memory, bytes.
std::uint64_t resident(const std::vector<pid_t>& processes);
/// Every thread of these processes runs on these processors only.
void pin(const std::vector<pid_t>& processes, const std::vector<unsigned>& processors);
void pin_this_thread(const std::vector<unsigned>& processors);
std::vector<unsigned> all_processors();

/// Descriptors that a process may have open; raised as far as this process may.
std::size_t raise_descriptor_limit();

/// A program that runs in a node of a lab until this object goes.
class Background {
 public:
  Background(const lab::Lab& lab, const std::string& node, const std::vector<std::string>& command,
             const std::filesystem::path& log);
  ~Background();
  Background(Background&& other) noexcept;
  Background& operator=(Background&&) = delete;
  [[nodiscard]] pid_t pid() const noexcept { return pid_; }

 private:
  pid_t pid_;
};

/// Runs a command in a node and gives back what it has written to stdout; throws, with its words, when it fails.
std::string output_of(const lab::Lab& lab, const std::string& node,
                      const std::vector<std::string>& command);

}  // namespace tcpmig::bench
