// SPDX-License-Identifier: MIT
#include "manual/program.hpp"

#include <fcntl.h>
#include <signal.h>
#include <sys/ptrace.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <system_error>

#include "sys/check.hpp"
#include "sys/errors.hpp"
#include "sys/unique_fd.hpp"

namespace tcpmig::manual {
namespace {

std::vector<char*> arguments_of(const std::vector<std::string>& command) {
  std::vector<char*> arguments;
  for (const std::string& word : command) arguments.push_back(const_cast<char*>(word.c_str()));
  arguments.push_back(nullptr);
  return arguments;
}

/// In the child. A machine that lets nobody be traced (Yama, ptrace_scope 3) must not run the program unstopped.
[[noreturn]] void try_execution(char* const* arguments, int report) {
  int error = 0;
  if (::ptrace(PTRACE_TRACEME, 0, nullptr, nullptr) < 0) {
    error = -errno;
  } else {
    ::execvp(arguments[0], arguments);
    error = errno;
  }
  [[maybe_unused]] const auto written = ::write(report, &error, sizeof(error));
  ::_exit(1);
}

[[noreturn]] void refuse(const std::string& program, int error) {
  if (error < 0)
    throw std::system_error(-error, std::generic_category(), "try to execute " + program);
  if (error == ENOENT)
    throw sys::NotFound("there is no program " + program + ", or not its interpreter");
  throw sys::WrongSetup(program + " cannot be executed: " + std::generic_category().message(error));
}

}  // namespace

void require_executable(const std::vector<std::string>& command) {
  const auto arguments = arguments_of(command);
  std::array<int, 2> ends{};
  sys::check("pipe", ::pipe2(ends.data(), O_CLOEXEC));
  const sys::UniqueFd reader(ends[0]);
  sys::UniqueFd writer(ends[1]);
  const pid_t child = sys::check("fork", ::fork());
  if (child == 0) try_execution(arguments.data(), writer.get());
  writer.reset();
  int error = 0, status = 0;
  const auto got = ::read(reader.get(), &error, sizeof(error));  // ends when the program is there
  ::kill(child, SIGKILL);
  ::waitpid(child, &status, __WALL);
  while (!WIFEXITED(status) && !WIFSIGNALED(status))
    if (::waitpid(child, &status, __WALL) < 0) break;
  if (got == sizeof(error)) refuse(command.front(), error);
}

void execute(const std::vector<std::string>& command) {
  ::execvp(command.front().c_str(), arguments_of(command).data());
  throw std::system_error(errno, std::generic_category(), "execute " + command.front());
}

}  // namespace tcpmig::manual
