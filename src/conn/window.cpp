// SPDX-License-Identifier: MIT
#include "conn/window.hpp"

#include <linux/tcp.h>
#include <netinet/in.h>

#include "conn/socket_option.hpp"

namespace tcpmig::conn {

RepairWindow dump_window(int fd) {
  const auto raw = get_option<tcp_repair_window>(fd, IPPROTO_TCP, TCP_REPAIR_WINDOW,
                                                 "getsockopt TCP_REPAIR_WINDOW");
  return {.snd_wl1 = raw.snd_wl1,
          .snd_wnd = raw.snd_wnd,
          .max_window = raw.max_window,
          .rcv_wnd = raw.rcv_wnd,
          .rcv_wup = raw.rcv_wup};
}

void set_window(int fd, const RepairWindow& window) {
  const tcp_repair_window raw{.snd_wl1 = window.snd_wl1,
                              .snd_wnd = window.snd_wnd,
                              .max_window = window.max_window,
                              .rcv_wnd = window.rcv_wnd,
                              .rcv_wup = window.rcv_wup};
  set_option(fd, IPPROTO_TCP, TCP_REPAIR_WINDOW, raw, "setsockopt TCP_REPAIR_WINDOW");
}

namespace {

/// snd_wl1 (the segment that last told a window) must not be after the next segment of the peer, or
/// its window would be ignored.
RepairWindow window_of_peer_only(const RepairWindow& fresh, const Snapshot& snapshot) {
  const auto received = static_cast<std::uint32_t>(snapshot.received.size());
  return {.snd_wl1 = (snapshot.rcv_nxt - received).value,
          .snd_wnd = snapshot.snd_wnd,
          .max_window = snapshot.snd_wnd,
          .rcv_wnd = fresh.rcv_wnd,
          .rcv_wup = snapshot.rcv_nxt.value};
}

}  // namespace

void restore_window(int fd, const Snapshot& snapshot) {
  set_window(fd,
             snapshot.window ? *snapshot.window : window_of_peer_only(dump_window(fd), snapshot));
}

}  // namespace tcpmig::conn
