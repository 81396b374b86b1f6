// SPDX-License-Identifier: MIT
#pragma once
#include <cstddef>
#include <vector>

#include "sys/unique_fd.hpp"

namespace tcpmig::sys {

/// Closes descriptors that strangers have given us, or may have put into a socket that we have not read, on threads of their own: how long
/// close() takes is the stranger's choice (SO_LINGER with data that nobody takes, a file system in user space).
class Aside {
 public:
  static constexpr std::size_t kMost = 64;  ///< threads

  void close(UniqueFd fd);
  /// False: strangers keep that many busy; nothing more should be taken from anybody.
  [[nodiscard]] bool is_free() const noexcept { return waiting_.empty(); }
  /// Those that found no thread, again.
  void run();

 private:
  std::vector<UniqueFd> waiting_;
};

}  // namespace tcpmig::sys
