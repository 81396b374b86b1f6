// SPDX-License-Identifier: MIT
#include "sys/process_stop.hpp"

#include <sys/ptrace.h>
#include <sys/wait.h>

#include <algorithm>
#include <charconv>
#include <filesystem>
#include <fstream>
#include <stdexcept>
#include <string>
#include <thread>

#include "sys/check.hpp"
#include "sys/errors.hpp"

namespace tcpmig::sys {
namespace {

namespace fs = std::filesystem;

fs::path tasks_of(pid_t process) { return "/proc/" + std::to_string(process) + "/task"; }

std::vector<pid_t> threads_of(pid_t process) {
  std::vector<pid_t> threads;
  std::error_code gone;
  for (fs::directory_iterator entry(tasks_of(process), gone), end; !gone && entry != end;
       entry.increment(gone)) {
    const std::string name = entry->path().filename();
    pid_t thread = 0;
    std::from_chars(name.data(), name.data() + name.size(), thread);
    threads.push_back(thread);
  }
  return threads;
}

/// "TracerPid", "State", .. of /proc/PID/task/TID/status; empty where there is none.
std::string status_of(pid_t process, pid_t thread, const std::string& field) {
  std::ifstream file(tasks_of(process) / std::to_string(thread) / "status");
  for (std::string line; std::getline(file, line);)
    if (line.starts_with(field + ":\t")) return line.substr(field.size() + 2);
  return "";
}

/// Ended, or about to: it will never run again in user space.
bool is_over(pid_t process, pid_t thread) {
  const std::string state = status_of(process, thread, "State");
  return state.empty() || state.starts_with('Z') || state.starts_with('X');
}

[[noreturn]] void explain(pid_t process, pid_t thread, int error) {
  const std::string what = "process " + std::to_string(process);
  const std::string tracer = status_of(process, thread, "TracerPid");
  if (!tracer.empty() && tracer != "0")
    throw std::runtime_error(what + " cannot be stopped: process " + tracer +
                             " traces it (a debugger, strace): end that first");
  if (error == EPERM)
    throw MissingFeature(what + " may not be stopped (thread " + std::to_string(thread) +
                         "): it takes root, or CAP_SYS_PTRACE");
  throw std::system_error(error, std::generic_category(), "ptrace of " + what);
}

}  // namespace

bool ProcessStop::has(pid_t thread) const noexcept {
  return std::ranges::any_of(threads_, [&](const Thread& one) { return one.id == thread; });
}

/// Until it stands still. One that has ended meanwhile is forgotten by id 0.
void ProcessStop::await_stop(Thread& thread, pid_t process, Deadline deadline) {
  for (;;) {
    int status = 0;
    const pid_t waited = ::waitpid(thread.id, &status, __WALL | WNOHANG);
    if (waited < 0 || (waited > 0 && !WIFSTOPPED(status))) {
      thread.id = 0;
      return;
    }
    if (waited > 0) {
      thread.signal = status >> 16 == PTRACE_EVENT_STOP ? 0 : WSTOPSIG(status);
      return;
    }
    if (std::chrono::steady_clock::now() > deadline)
      throw std::runtime_error("process " + std::to_string(process) +
                               " does not stop: it waits for a device or a file system");
    std::this_thread::sleep_for(std::chrono::microseconds(50));
  }
}

/// False: there was none.
bool ProcessStop::stop_new_threads(pid_t process, Deadline deadline) {
  bool any = false;
  for (const pid_t id : threads_of(process)) {
    if (has(id)) continue;
    if (::ptrace(PTRACE_SEIZE, id, nullptr, nullptr) < 0) {
      const int error = errno;
      if (error == ESRCH || is_over(process, id)) continue;
      explain(process, id, error);
    }
    any = true;
    threads_.push_back({.id = id});
    ::ptrace(PTRACE_INTERRUPT, id, nullptr, nullptr);
    await_stop(threads_.back(), process, deadline);
  }
  std::erase_if(threads_, [](const Thread& thread) { return thread.id == 0; });
  return any;
}

ProcessStop::ProcessStop(std::span<const pid_t> processes, std::chrono::milliseconds limit) {
  const Deadline deadline = std::chrono::steady_clock::now() + limit;
  try {
    // a thread that is not stopped yet may make another one
    for (const pid_t process : processes)
      while (stop_new_threads(process, deadline))
        if (std::chrono::steady_clock::now() > deadline)
          throw std::runtime_error("process " + std::to_string(process) +
                                   " makes new threads all the time");
  } catch (...) {
    release();
    throw;
  }
}

void ProcessStop::release() noexcept {
  // One that never stood still cannot be let go; the kernel does it when this process ends.
  for (const Thread& thread : threads_)
    ::ptrace(PTRACE_DETACH, thread.id, nullptr, static_cast<long>(thread.signal));
  threads_.clear();
}

}  // namespace tcpmig::sys
