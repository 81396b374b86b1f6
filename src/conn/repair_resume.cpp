// SPDX-License-Identifier: MIT
// The recipe of a restore, in the order of libsoccr (CRIU): one call for each kernel fact.
#include <stdexcept>

#include <tcpmig/resume.hpp>

#include "conn/endpoints.hpp"
#include "conn/queues.hpp"
#include "conn/repair_mode.hpp"
#include "conn/socket_option.hpp"
#include "conn/tcp_options.hpp"
#include "conn/timestamps.hpp"
#include "conn/window.hpp"

namespace tcpmig {
namespace {

void refuse_what_cannot_be_restored(const Snapshot& snapshot) {
  if (!snapshot.sent.empty() || !snapshot.unsent.empty() || snapshot.snd_una != snapshot.snd_nxt)
    throw std::invalid_argument(
        "repair_resume: the snapshot has data that the peer has not acknowledged");
  if (snapshot.wscale && (snapshot.wscale->snd > 14 || snapshot.wscale->rcv > 14))
    throw std::invalid_argument("repair_resume: window scale above 14");
}

/// Leaving repair mode clears SO_REUSEADDR.
void go_live(int fd) {
  conn::leave_repair(fd);
  conn::set_option(fd, SOL_SOCKET, SO_REUSEADDR, int{1}, "setsockopt SO_REUSEADDR");
}

}  // namespace

sys::UniqueFd repair_resume(const Snapshot& snapshot, std::optional<sys::Endpoint> local) {
  refuse_what_cannot_be_restored(snapshot);
  const sys::Endpoint here = local.value_or(snapshot.local);
  // Whatever throws below: the socket is closed while in repair, and so without a packet.
  sys::UniqueFd socket = conn::open_in_repair(here);
  const int fd = socket.get();
  conn::restore_local(fd, here);
  conn::restore_queue_start(
      fd, conn::Queue::kReceive,
      snapshot.rcv_nxt - static_cast<std::uint32_t>(snapshot.received.size()));
  conn::restore_queue_start(fd, conn::Queue::kSend, snapshot.snd_nxt);
  if (!snapshot.wscale) conn::restore_no_window_scale(fd);
  conn::restore_mss(fd, snapshot.mss);
  conn::restore_peer(fd, snapshot.peer);
  conn::restore_options(fd, snapshot);
  if (snapshot.timestamps) conn::restore_timestamps(fd, *snapshot.timestamps);
  conn::restore_received(fd, snapshot.received);
  conn::restore_window(fd, snapshot);
  go_live(fd);
  return socket;
}

}  // namespace tcpmig
