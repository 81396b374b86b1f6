// SPDX-License-Identifier: MIT
#pragma once
#include <signal.h>

#include <exception>

/// Ctrl-C as an exception at a point of our choosing, so that what was made is removed.
namespace tcpmig::lab {

class Interrupted : public std::exception {
 public:
  [[nodiscard]] const char* what() const noexcept override { return "interrupted"; }
};

/// While one lives, SIGINT, SIGTERM and SIGHUP are only noted. Nests.
class CatchInterrupts {
 public:
  CatchInterrupts();
  ~CatchInterrupts();
  CatchInterrupts(const CatchInterrupts&) = delete;
  CatchInterrupts& operator=(const CatchInterrupts&) = delete;

 private:
  struct sigaction previous_[3]{};
};

[[nodiscard]] bool interrupted() noexcept;
void throw_if_interrupted();

}  // namespace tcpmig::lab
