// SPDX-License-Identifier: MIT
#pragma once
#include <cerrno>
#include <string>
#include <system_error>

namespace tcpmig::sys {

/// One line per system call, naming the attempt: returns `result`, or throws std::system_error with errno and `what`.
/// For calls that return -1 and set errno.
template <typename Integer>
Integer check(const std::string& what, Integer result) {
  if (result < 0) throw std::system_error(errno, std::generic_category(), what);
  return result;
}

/// The same for calls that return -errno themselves (libbpf).
template <typename Integer>
Integer check_errno(const std::string& what, Integer result) {
  if (result < 0) throw std::system_error(static_cast<int>(-result), std::generic_category(), what);
  return result;
}

}  // namespace tcpmig::sys
