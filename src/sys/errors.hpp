// SPDX-License-Identifier: MIT
#pragma once
#include <stdexcept>

/// Failures that whoever started us can tell apart: the command line gives each an exit code of its
/// own. All others are plain exceptions.
namespace tcpmig::sys {

/// What was given to us (a configuration, a file, a name) does not fit this machine.
struct WrongSetup : std::runtime_error {
  using std::runtime_error::runtime_error;
};
/// Something runs already where it may run once.
struct AlreadyRunning : std::runtime_error {
  using std::runtime_error::runtime_error;
};
/// The kernel, or this container, lacks something that the work takes.
struct MissingFeature : std::runtime_error {
  using std::runtime_error::runtime_error;
};
/// The thing that was named is not there.
struct NotFound : std::runtime_error {
  using std::runtime_error::runtime_error;
};

}  // namespace tcpmig::sys
