// SPDX-License-Identifier: MIT
#include "conn/tcp_options.hpp"

#include <linux/tcp.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>

#include "conn/socket_option.hpp"
#include "shared/wire.h"

namespace tcpmig::conn {
namespace {

/// Option kinds (RFC 9293, RFC 7323, RFC 2018): what tcp_repair_opt.opt_code takes.
enum Kind : std::uint32_t { kMaxSegment = 2, kWindowScale = 3, kSackPermitted = 4, kTimestamp = 8 };

/// linux/tcp.h, newer than Debian 12's headers (Linux 6.7): microsecond timestamps.
constexpr unsigned kTcpiOptUsecTs = 64;

}  // namespace

NegotiatedOptions dump_options(const ::tcp_info& info) {
  NegotiatedOptions options;
  const auto map = [&](unsigned kernel, unsigned ours) {
    if ((info.tcpi_options & kernel) != 0)
      options.mask = static_cast<std::uint8_t>(options.mask | ours);
  };
  map(TCPI_OPT_WSCALE, abi::WIRE_OPT_WSCALE);
  map(TCPI_OPT_SACK, abi::WIRE_OPT_SACK);
  map(TCPI_OPT_TIMESTAMPS, abi::WIRE_OPT_TIMESTAMPS);
  map(TCPI_OPT_ECN, abi::WIRE_OPT_ECN);
  map(kTcpiOptUsecTs, abi::WIRE_OPT_USEC_TS);
  if ((options.mask & abi::WIRE_OPT_WSCALE) != 0)
    options.wscale = {.snd = info.tcpi_snd_wscale, .rcv = info.tcpi_rcv_wscale};
  return options;
}

void restore_no_window_scale(int fd) {
  set_option(fd, IPPROTO_TCP, TCP_WINDOW_CLAMP, int{65535}, "setsockopt TCP_WINDOW_CLAMP");
}

void restore_options(int fd, const Snapshot& snapshot) {
  std::array<tcp_repair_opt, 4> options{};
  socklen_t count = 0;
  if (snapshot.mss != 0) options[count++] = {kMaxSegment, snapshot.mss};
  if (snapshot.wscale)
    options[count++] = {kWindowScale, snapshot.wscale->snd |
                                          static_cast<std::uint32_t>(snapshot.wscale->rcv) << 16};
  if (snapshot.sack) options[count++] = {kSackPermitted, 0};
  if (snapshot.timestamps) options[count++] = {kTimestamp, 0};
  if (count == 0) return;  // an empty list is EINVAL
  const auto length = static_cast<socklen_t>(count * sizeof(tcp_repair_opt));
  sys::check("setsockopt TCP_REPAIR_OPTIONS",
             ::setsockopt(fd, IPPROTO_TCP, TCP_REPAIR_OPTIONS, options.data(), length));
}

std::uint16_t dump_mss(int fd) {
  return static_cast<std::uint16_t>(
      get_option<int>(fd, IPPROTO_TCP, TCP_MAXSEG, "getsockopt TCP_MAXSEG"));
}

void restore_mss(int fd, std::uint16_t mss) {
  if (mss == 0) return;
  // what the kernel takes: TCP_MIN_MSS .. MAX_TCP_WINDOW; restore_options() sets the exact one
  const int value = std::clamp<int>(mss, 88, 32767);
  set_option(fd, IPPROTO_TCP, TCP_MAXSEG, value, "setsockopt TCP_MAXSEG");
}

}  // namespace tcpmig::conn
