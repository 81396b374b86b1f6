// SPDX-License-Identifier: MIT
#pragma once
#include <sys/types.h>

#include <chrono>
#include <span>
#include <vector>

namespace tcpmig::sys {

/// Every thread of some processes stands still while it lives (ptrace(2), PTRACE_SEIZE and PTRACE_INTERRUPT: no signal, nobody is told). What they
/// notice: system calls that are interrupted begin again, but epoll_wait() and calls with a timeout of SO_RCVTIMEO or SO_SNDTIMEO say EINTR, as
/// after SIGSTOP and SIGCONT (signal(7)). Should this process be killed the kernel lets them go on. To be used and destroyed in one thread.
class ProcessStop {
 public:
  /// Throws MissingFeature without the right, std::runtime_error where one cannot be stopped (it is traced by a debugger, or waits for a
  /// device); those that stood still go on then. A process that has ended counts as stopped.
  explicit ProcessStop(std::span<const pid_t> processes,
                       std::chrono::milliseconds deadline = std::chrono::seconds(2));
  ~ProcessStop() { release(); }
  ProcessStop(const ProcessStop&) = delete;
  ProcessStop& operator=(const ProcessStop&) = delete;

  void release() noexcept;

 private:
  struct Thread {
    pid_t id = 0;
    int signal = 0;  ///< one that was about to be delivered: it is when the thread goes on
  };
  using Deadline = std::chrono::steady_clock::time_point;
  bool stop_new_threads(pid_t process, Deadline deadline);
  void await_stop(Thread& thread, pid_t process, Deadline deadline);
  [[nodiscard]] bool has(pid_t thread) const noexcept;

  std::vector<Thread> threads_;
};

}  // namespace tcpmig::sys
