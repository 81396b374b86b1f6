// SPDX-License-Identifier: MIT
#include "processes.hpp"

#include <sched.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>

#include <charconv>
#include <fstream>
#include <sstream>
#include <stdexcept>
#include <thread>

#include "lab/interrupt.hpp"
#include "lab/process.hpp"
#include "sys/check.hpp"
#include "sys/netns.hpp"

namespace tcpmig::bench {
namespace {

namespace fs = std::filesystem;
using std::chrono::milliseconds;

fs::path of_process(pid_t pid) { return fs::path("/proc") / std::to_string(pid); }

/// A process may end while its directory is read: then it has no threads any more.
std::vector<pid_t> threads_of(pid_t pid) {
  std::vector<pid_t> result;
  std::error_code error;
  for (const auto& entry : fs::directory_iterator(of_process(pid) / "task", error))
    result.push_back(static_cast<pid_t>(std::stol(entry.path().filename())));
  return result;
}

cpu_set_t set_of(const std::vector<unsigned>& processors) {
  cpu_set_t set;
  CPU_ZERO(&set);
  for (const unsigned processor : processors) CPU_SET(processor, &set);
  return set;
}

std::string everything_in(int fd) {
  std::string text(static_cast<std::size_t>(::lseek(fd, 0, SEEK_END)), '\0');
  const ssize_t got = ::pread(fd, text.data(), text.size(), 0);
  text.resize(got < 0 ? 0 : static_cast<std::size_t>(got));
  return text;
}

}  // namespace

std::vector<pid_t> with_children(pid_t pid) {
  std::vector<pid_t> result{pid};
  for (std::size_t i = 0; i < result.size(); ++i) {
    for (const pid_t thread : threads_of(result[i])) {
      std::ifstream children(of_process(result[i]) / "task" / std::to_string(thread) / "children");
      for (pid_t child = 0; children >> child;) result.push_back(child);
    }
  }
  return result;
}

std::chrono::nanoseconds cpu_time(const std::vector<pid_t>& processes) {
  std::chrono::nanoseconds sum{};
  for (const pid_t pid : processes)
    for (const pid_t thread : threads_of(pid)) {
      std::ifstream file(of_process(pid) / "task" / std::to_string(thread) / "schedstat");
      std::int64_t ran = 0;
      if (file >> ran) sum += std::chrono::nanoseconds(ran);
    }
  return sum;
}

std::uint64_t resident(const std::vector<pid_t>& processes) {
  std::uint64_t pages = 0;
  for (const pid_t pid : processes) {
    std::ifstream file(of_process(pid) / "statm");
    std::uint64_t all = 0, here = 0;
    if (file >> all >> here) pages += here;
  }
  return pages * static_cast<std::uint64_t>(::sysconf(_SC_PAGESIZE));
}

void pin(const std::vector<pid_t>& processes, const std::vector<unsigned>& processors) {
  const cpu_set_t set = set_of(processors);
  for (const pid_t pid : processes)
    for (const pid_t thread : threads_of(pid)) ::sched_setaffinity(thread, sizeof set, &set);
}

void pin_this_thread(const std::vector<unsigned>& processors) {
  const cpu_set_t set = set_of(processors);
  sys::check("sched_setaffinity", ::sched_setaffinity(0, sizeof set, &set));
}

std::vector<unsigned> all_processors() {
  std::vector<unsigned> result;
  for (unsigned i = 0; i < std::thread::hardware_concurrency(); ++i) result.push_back(i);
  return result;
}

std::size_t raise_descriptor_limit() {
  rlimit limit{1'000'000, 1'000'000};
  if (::setrlimit(RLIMIT_NOFILE, &limit) == 0) return limit.rlim_cur;
  sys::check("getrlimit", ::getrlimit(RLIMIT_NOFILE, &limit));
  limit.rlim_cur = limit.rlim_max;
  sys::check("setrlimit", ::setrlimit(RLIMIT_NOFILE, &limit));
  return limit.rlim_cur;
}

Background::Background(const lab::Lab& lab, const std::string& node,
                       const std::vector<std::string>& command, const fs::path& log)
    : pid_(lab.spawn(node, command, log)) {}

Background::Background(Background&& other) noexcept : pid_(std::exchange(other.pid_, -1)) {}

/// It leads a session of its own, so its group is all of it.
Background::~Background() {
  if (pid_ <= 0) return;
  try {
    ::kill(-pid_, SIGTERM);
    if (lab::wait_until(milliseconds(2000), [this] { return lab::poll_exit(pid_).has_value(); }))
      return;
    ::kill(-pid_, SIGKILL);
    lab::wait_for(pid_);
  } catch (const std::exception&) {
    // the lab's end takes whatever is left in its nodes
  }
}

std::string output_of(const lab::Lab& lab, const std::string& node,
                      const std::vector<std::string>& command) {
  const sys::UniqueFd output(sys::check("memfd_create", ::memfd_create("output", MFD_CLOEXEC)));
  const sys::UniqueFd netns = sys::open_netns(lab.node(node).netns);
  const int code = lab::wait_for(lab::start({.argv = command,
                                             .netns_fd = netns.get(),
                                             .output = output.get(),
                                             .error = output.get(),
                                             .death_signal = SIGTERM}));
  lab::throw_if_interrupted();
  std::string text = everything_in(output.get());
  if (code != 0)
    throw std::runtime_error(command.at(0) + " on " + node + " has failed (" +
                             std::to_string(code) + "):\n" + text);
  return text;
}

}  // namespace tcpmig::bench
