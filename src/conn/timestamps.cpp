// SPDX-License-Identifier: MIT
#include "conn/timestamps.hpp"

#include <linux/tcp.h>
#include <netinet/in.h>

#include <stdexcept>

#include "conn/socket_option.hpp"
#include "conn/tcp_options.hpp"
#include "shared/wire.h"

namespace tcpmig::conn {
namespace {

constexpr std::uint32_t kMicroseconds = 1;  // the flag in the lowest bit of TCP_TIMESTAMP

}  // namespace

std::uint32_t dump_tsval(int fd) {
  const auto value =
      get_option<std::uint32_t>(fd, IPPROTO_TCP, TCP_TIMESTAMP, "getsockopt TCP_TIMESTAMP");
  return (value | kMicroseconds) + 1;
}

void restore_timestamps(int fd, const Timestamps& timestamps) {
  // up, not down, to the next value that has the flag as wanted
  const std::uint32_t value = timestamps.microseconds ? timestamps.tsval_now | kMicroseconds
                                                      : (timestamps.tsval_now + 1) & ~kMicroseconds;
  set_option(fd, IPPROTO_TCP, TCP_TIMESTAMP, value, "setsockopt TCP_TIMESTAMP");
  if (!timestamps.microseconds) return;
  const auto info = get_option<::tcp_info>(fd, IPPROTO_TCP, TCP_INFO, "getsockopt TCP_INFO");
  if ((dump_options(info).mask & abi::WIRE_OPT_USEC_TS) == 0)
    throw std::runtime_error(
        "this kernel has no microsecond timestamps, which the connection uses");
}

}  // namespace tcpmig::conn
