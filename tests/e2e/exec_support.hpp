// SPDX-License-Identifier: MIT
#pragma once
#include "e2e/support.hpp"

namespace tcpmig::e2e {

/// A small program of the tests (tests/e2e/programs/), as C makes it: environment TCPMIG_TEST_PROGRAMS.
std::string program_file(const std::string& name);

/// A program that runs on server1, port 80, under `tcpmig exec` (or `how`); ended with the object, all of it.
class ExecProgram {
 public:
  ExecProgram(const TestLab& lab, const std::vector<std::string>& command,
              const std::vector<std::string>& how = {"exec", "--"});
  ~ExecProgram();
  ExecProgram(const ExecProgram&) = delete;
  ExecProgram& operator=(const ExecProgram&) = delete;
  void stop(int signal);
  [[nodiscard]] pid_t pid() const noexcept { return pid_; }
  [[nodiscard]] std::string output() const;

 private:
  std::filesystem::path log_;
  pid_t pid_ = -1;
};

/// How many connections dispatcher1 has relayed, for whatever reason.
std::uint64_t relays(const TestLab& lab);

}  // namespace tcpmig::e2e
