// SPDX-License-Identifier: MIT
#pragma once
#include <cstdint>

#include <tcpmig/snapshot.hpp>

#include "sys/address.hpp"

struct tcp_info;

namespace tcpmig::conn {

/// What the two ends negotiated on their SYNs, as TCP_INFO tells it: bits of abi::wire_options, and
/// the window scales.
struct NegotiatedOptions {
  std::uint8_t mask = 0;
  WindowScale wscale;
};
NegotiatedOptions dump_options(const ::tcp_info& info);

/// Without window scaling the peer takes our windows as they are, but the kernel chooses a scale in
/// connect() all the same and never takes it back in repair: it would announce windows divided by
/// it. A clamp of 64 KB makes it choose 0. Before connect.
void restore_no_window_scale(int fd);
/// Only what was negotiated: an option the peer never offered breaks the connection. In repair,
/// connected, before anything is sent: from Linux 6.1 on the kernel says EPERM afterwards.
void restore_options(int fd, const Snapshot& snapshot);

/// The peer's MSS (mss_clamp). In repair: outside of it TCP_MAXSEG is the size in use now.
std::uint16_t dump_mss(int fd);
/// Before connect, as if the application had asked for it: connect() cuts segments by the default
/// of the family else (536, 1220: more than a peer with a small MSS takes), and TCP_REPAIR_OPTIONS
/// changes the clamp, but not the present size.
void restore_mss(int fd, std::uint16_t mss);

}  // namespace tcpmig::conn
