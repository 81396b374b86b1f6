// SPDX-License-Identifier: MIT
#pragma once
#include <sys/socket.h>

#include <cstdint>

#include "sys/check.hpp"

namespace tcpmig::conn {

/// One socket option of a trivially copyable type. Both throw std::system_error that names the
/// attempt (`what` is a literal, so that naming it costs nothing where it succeeds).
template <typename Value>
Value get_option(int fd, int level, int name, const char* what) {
  Value value{};
  socklen_t length = sizeof(value);
  if (::getsockopt(fd, level, name, &value, &length) < 0) sys::check(what, -1);
  return value;
}

template <typename Value>
void set_option(int fd, int level, int name, const Value& value, const char* what) {
  if (::setsockopt(fd, level, name, &value, sizeof(value)) < 0) sys::check(what, -1);
}

/// Never used twice as long as the machine runs.
inline std::uint64_t socket_cookie(int fd) {
  return get_option<std::uint64_t>(fd, SOL_SOCKET, SO_COOKIE, "getsockopt SO_COOKIE");
}

}  // namespace tcpmig::conn
