// SPDX-License-Identifier: MIT
#pragma once
#include <exception>
#include <stdexcept>
#include <string>

namespace tcpmig::cli {

/// What the program ends with; `tcpmig --help` lists them.
enum ExitCode { kDone = 0, kFailed = 1, kUsage = 2, kMissing = 3, kRunning = 4, kNotFound = 5 };

/// An end with a certain exit code and one line that says what to do.
class Failure : public std::runtime_error {
 public:
  Failure(ExitCode code, const std::string& what) : std::runtime_error(what), code_(code) {}
  [[nodiscard]] ExitCode code() const noexcept { return code_; }

 private:
  ExitCode code_;
};

/// What to print for an exception, and what to end with.
struct Verdict {
  ExitCode code;
  std::string line;
};
Verdict judge(const std::exception& error);

}  // namespace tcpmig::cli
