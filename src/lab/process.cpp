// SPDX-License-Identifier: MIT
#include "lab/process.hpp"

#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

extern "C" {  // glibc 2.36 forgot __BEGIN_DECLS in this one
#include <sys/pidfd.h>
}

#include <algorithm>
#include <cstring>
#include <fstream>
#include <set>
#include <sstream>

#include "sys/check.hpp"

extern char** environ;

namespace tcpmig::lab {
namespace {

using std::chrono::milliseconds;
using std::chrono::steady_clock;

std::vector<char*> pointers(std::vector<std::string>& strings) {
  std::vector<char*> result;
  for (std::string& string : strings) result.push_back(string.data());
  result.push_back(nullptr);
  return result;
}

std::vector<std::string> merged_environment(const Command& command) {
  std::vector<std::string> result;
  for (char** entry = environ; *entry != nullptr; ++entry) {
    const std::string text = *entry;
    const bool replaced =
        std::any_of(command.environment.begin(), command.environment.end(),
                    [&](const auto& pair) { return text.starts_with(pair.first + "="); });
    if (!replaced) result.push_back(text);
  }
  for (const auto& [name, value] : command.environment) result.push_back(name + "=" + value);
  return result;
}

/// In the child: only async-signal-safe calls (the caller may have threads). Returns what failed,
/// by errno.
int become(const Command& command, pid_t parent, char* const* argv, char* const* environment) {
  if (command.own_session) ::setsid();
  if (command.death_signal != 0) {
    ::prctl(PR_SET_PDEATHSIG, command.death_signal);
    if (::getppid() != parent) return ESRCH;  // the parent ended before prctl
  }
  if (command.netns_fd >= 0 && ::setns(command.netns_fd, CLONE_NEWNET) != 0) return errno;
  const int sources[] = {command.input, command.output, command.error};
  for (int target = 0; target < 3; ++target)
    if (sources[target] >= 0 && ::dup2(sources[target], target) < 0) return errno;
  sigset_t none;
  sigemptyset(&none);
  ::sigprocmask(SIG_SETMASK, &none, nullptr);
  for (const int number : {SIGINT, SIGQUIT, SIGTERM, SIGPIPE, SIGCHLD, SIGHUP})
    ::signal(number, SIG_DFL);
  ::execvpe(argv[0], argv, environment);
  return errno;
}

std::string read_text(const std::filesystem::path& path) {
  std::ifstream file(path);
  return {std::istreambuf_iterator<char>(file), {}};
}

struct Stat {
  char state = 0;
  pid_t parent = 0;
  long threads = 0;
  std::uint64_t start_time = 0;
};

/// /proc/PID/stat: the command name is in parentheses and may hold anything, so fields are counted
/// from the last ')'.
std::optional<Stat> read_stat(pid_t pid) {
  const std::string text = read_text("/proc/" + std::to_string(pid) + "/stat");
  const auto end = text.rfind(')');
  if (end == std::string::npos) return {};
  std::istringstream fields(text.substr(end + 1));
  Stat stat;
  std::string skipped;
  fields >> stat.state >> stat.parent;
  for (int field = 5; field < 20; ++field) fields >> skipped;
  fields >> stat.threads >> skipped >> stat.start_time;
  return fields ? std::optional(stat) : std::nullopt;
}

/// The first thread of a process may be a zombie long before the last one has ended, and with it the process's files and locks.
bool has_ended(const Stat& stat) {
  return stat.state == 'X' || (stat.state == 'Z' && stat.threads <= 1);
}

std::set<pid_t> self_and_ancestors() {
  std::set<pid_t> result;
  for (pid_t pid = ::getpid(); pid > 0 && result.insert(pid).second;) {
    const auto stat = read_stat(pid);
    pid = stat ? stat->parent : 0;
  }
  return result;
}

void reap(pid_t pid) { ::waitpid(pid, nullptr, WNOHANG); }  // only if it is a child of ours

/// Waits until every pidfd is readable (= its process has ended) or the time is over.
void wait_all(std::vector<pollfd>& ends, milliseconds limit) {
  const auto deadline = steady_clock::now() + limit;
  while (std::any_of(ends.begin(), ends.end(), [](const pollfd& end) { return end.fd >= 0; })) {
    const auto left =
        std::chrono::duration_cast<milliseconds>(deadline - steady_clock::now()).count();
    if (left <= 0) return;
    if (::poll(ends.data(), ends.size(), static_cast<int>(left)) <= 0) continue;
    for (pollfd& end : ends)
      if (end.revents != 0) end.fd = -1;  // poll() skips negative descriptors
  }
}

}  // namespace

pid_t start(const Command& command) {
  std::vector<std::string> argv = command.argv;
  std::vector<std::string> environment = merged_environment(command);
  const std::vector<char*> argv_pointers = pointers(argv);
  const std::vector<char*> environment_pointers = pointers(environment);
  int ends[2];
  sys::check("pipe2", ::pipe2(ends, O_CLOEXEC));
  const sys::UniqueFd reader(ends[0]);
  sys::UniqueFd writer(ends[1]);
  const pid_t parent = ::getpid();
  const pid_t child = sys::check("fork", ::fork());
  if (child == 0) {
    const int error = become(command, parent, argv_pointers.data(), environment_pointers.data());
    [[maybe_unused]] const auto written = ::write(ends[1], &error, sizeof error);
    ::_exit(127);
  }
  writer.reset();
  int error = 0;
  ssize_t got = 0;
  do got = ::read(reader.get(), &error, sizeof error);
  while (got < 0 && errno == EINTR);
  if (got != sizeof error) return child;  // the pipe was closed by exec
  ::waitpid(child, nullptr, 0);
  throw std::system_error(error, std::generic_category(), "cannot run " + command.argv.at(0));
}

int wait_for(pid_t child) {
  int status = 0;
  while (::waitpid(child, &status, 0) < 0)
    if (errno != EINTR) throw std::system_error(errno, std::generic_category(), "waitpid");
  return WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
}

std::optional<int> poll_exit(pid_t child) {
  int status = 0;
  if (::waitpid(child, &status, WNOHANG) != child) return {};
  return WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
}

std::optional<ProcessId> identify(pid_t pid) {
  const auto stat = read_stat(pid);
  if (!stat || has_ended(*stat)) return {};
  std::error_code error;
  const auto program =
      std::filesystem::read_symlink("/proc/" + std::to_string(pid) + "/exe", error);
  return ProcessId{pid, stat->start_time, program.string()};
}

bool is_alive(const ProcessId& process) {
  const auto now = identify(process.pid);
  if (!now || now->start_time != process.start_time) return false;
  // One that is on its way out has given up its memory, and its program's name with it, but not yet its files and locks. A program
  // that was rebuilt or removed meanwhile reads "PATH (deleted)".
  return now->program.empty() || now->program == process.program ||
         now->program == process.program + " (deleted)";
}

std::vector<ProcessId> processes_in(const std::string& netns) {
  struct stat wanted{};
  if (::stat(("/run/netns/" + netns).c_str(), &wanted) != 0) return {};
  const std::set<pid_t> own = self_and_ancestors();
  std::vector<ProcessId> result;
  std::error_code error;
  for (const auto& entry : std::filesystem::directory_iterator("/proc", error)) {
    const std::string name = entry.path().filename();
    if (name.find_first_not_of("0123456789") != std::string::npos) continue;
    const auto pid = static_cast<pid_t>(std::stol(name));
    struct stat found{};
    if (own.contains(pid) || ::stat((entry.path() / "ns/net").c_str(), &found) != 0) continue;
    if (found.st_ino != wanted.st_ino || found.st_dev != wanted.st_dev) continue;
    if (auto process = identify(pid)) result.push_back(*process);
  }
  return result;
}

std::vector<ProcessId> terminate(const std::vector<ProcessId>& processes, milliseconds grace) {
  std::vector<sys::UniqueFd> handles;
  std::vector<pollfd> ends;
  for (const ProcessId& process : processes) {
    sys::UniqueFd handle(::pidfd_open(process.pid, 0));
    // checked after pidfd_open: from here on the handle cannot come to mean another process
    if (!handle || !is_alive(process)) continue;
    ends.push_back({handle.get(), POLLIN, 0});
    handles.push_back(std::move(handle));
  }
  for (const auto& [number, limit] :
       {std::pair(SIGTERM, grace), std::pair(SIGKILL, milliseconds(2000))}) {
    for (const pollfd& end : ends)
      if (end.fd >= 0) ::pidfd_send_signal(end.fd, number, nullptr, 0);
    wait_all(ends, limit);
  }
  std::vector<ProcessId> left;
  for (const ProcessId& process : processes) {
    reap(process.pid);
    if (is_alive(process)) left.push_back(process);
  }
  return left;
}

bool wait_until(milliseconds deadline, const std::function<bool()>& done, milliseconds step) {
  const auto end = steady_clock::now() + deadline;
  while (!done()) {
    if (steady_clock::now() >= end) return false;
    ::poll(nullptr, 0, static_cast<int>(step.count()));
  }
  return true;
}

std::string tail(const std::filesystem::path& file, unsigned lines) {
  std::ifstream input(file);
  std::vector<std::string> all;
  for (std::string line; std::getline(input, line);) {
    all.push_back(line);
    if (all.size() > lines) all.erase(all.begin());
  }
  std::string result;
  for (const std::string& line : all) result += "  " + line + "\n";
  return result;
}

}  // namespace tcpmig::lab
