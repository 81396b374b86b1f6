// SPDX-License-Identifier: MIT
// The recipe of a restore, in the order of libsoccr (CRIU): one call for each kernel fact.
#include <arpa/inet.h>
#include <linux/bpf.h>  // the TCP states
#include <linux/tcp.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <stdexcept>

#include <tcpmig/resume.hpp>

#include "conn/endpoints.hpp"
#include "conn/queues.hpp"
#include "conn/raw_socket.hpp"
#include "conn/repair_helper.hpp"
#include "conn/repair_mode.hpp"
#include "conn/repair_steps.hpp"
#include "conn/segment.hpp"
#include "conn/settings.hpp"
#include "conn/socket_option.hpp"
#include "conn/tcp_options.hpp"
#include "conn/timestamps.hpp"
#include "conn/window.hpp"
#include "sys/sock_diag.hpp"
#include "sys/unique_fd.hpp"

namespace tcpmig {
namespace {

void refuse_what_contradicts_itself(const Snapshot& snapshot, const sys::Endpoint& here) {
  if (snapshot.sent.size() != snapshot.snd_nxt.since(snapshot.snd_una))
    throw std::invalid_argument("repair_resume: sent is not [snd_una, snd_nxt)");
  if (snapshot.state == TcpState::kFinWait2 && !(snapshot.sent.empty() && snapshot.unsent.empty()))
    throw std::invalid_argument("repair_resume: in FIN_WAIT2 everything has been acknowledged");
  if (snapshot.wscale && (snapshot.wscale->snd > 14 || snapshot.wscale->rcv > 14))
    throw std::invalid_argument("repair_resume: window scale above 14");
  if (here.address.is_ipv4() != snapshot.peer.address.is_ipv4())
    throw std::invalid_argument("repair_resume: " + here.str() + " and " + snapshot.peer.str() +
                                " are of different families");
}

/// In CLOSE, with empty queues: the only time when the kernel takes sequence numbers. MSS and window scale are chosen in connect().
sys::UniqueFd connected_in_repair(const Snapshot& snapshot, const sys::Endpoint& here) {
  sys::UniqueFd socket = conn::open_in_repair(here, snapshot.mapped);
  const int fd = socket.get();
  conn::restore_local(fd, here, snapshot.mapped);
  conn::restore_queue_start(
      fd, conn::Queue::kReceive,
      snapshot.rcv_nxt - static_cast<std::uint32_t>(snapshot.received.size()));
  conn::restore_queue_start(fd, conn::Queue::kSend, snapshot.snd_una);
  if (!snapshot.wscale) conn::restore_no_window_scale(fd);
  conn::restore_mss(fd, snapshot.mss);
  conn::restore_peer(fd, snapshot.peer, snapshot.mapped);
  return socket;
}

/// What an earlier connection of the same four-tuple has left here is over: the peer has begun another one.
bool end_time_wait(const sys::Endpoint& here, const sys::Endpoint& peer) {
  sys::SockDiag diag;
  const auto socket = diag.find(here, peer);
  if (!socket || socket->state != BPF_TCP_TIME_WAIT) return false;
  try {
    return diag.destroy(*socket);
  } catch (const std::system_error& error) {
    if (error.code().value() != EPERM) throw;
  }
  const sys::UniqueFd any(sys::check("socket", ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)));
  conn::ask_helper({.operation = conn::RepairOperation::kEndTimeWait,
                    .local = here.address.v6(),
                    .peer = peer.address.v6(),
                    .local_port = here.port,
                    .peer_port = peer.port},
                   any.get(), "end what an earlier connection has left (SOCK_DESTROY)");
  return true;
}

sys::UniqueFd connected(const Snapshot& snapshot, const sys::Endpoint& here) {
  try {
    return connected_in_repair(snapshot, here);
  } catch (const std::system_error& error) {
    if (error.code().value() != EADDRNOTAVAIL || !end_time_wait(here, snapshot.peer)) throw;
  }
  return connected_in_repair(snapshot, here);
}

void shut_down(int fd) { sys::check("shutdown", ::shutdown(fd, SHUT_WR)); }

/// What the peer has sent and not heard of yet, although it is in the snapshot.
bool owes_acknowledgement(const Snapshot& snapshot) {
  return snapshot.window && Seq{snapshot.window->rcv_wup}.before(snapshot.rcv_nxt);
}

/// The window probe that it may send acknowledges what has come, before the peer sends it again. And a
/// peer that owes us an acknowledgement (it was dropped by the lock, or the bytes were lost) answers at once, or we should hear of it only after the
/// retransmission timeout of a new connection.
void go_live(int fd, const Snapshot& snapshot) {
  conn::leave_repair(fd, !snapshot.sent.empty() || owes_acknowledgement(snapshot));
}

bool needs_a_packet(const Snapshot& snapshot) {
  return snapshot.peer_closed() || snapshot.state == TcpState::kFinWait2;
}

/// The peer's packet that closed its direction, or acknowledged that we had closed ours. Without a `deliver` a helper makes it.
void deliver_end(int fd, const Snapshot& snapshot, const sys::Endpoint& here,
                 const Deliver& deliver) {
  if (!needs_a_packet(snapshot)) return;
  const bool acknowledged = snapshot.state == TcpState::kFinWait2;
  const unsigned scale = snapshot.wscale ? snapshot.wscale->snd : 0;
  const conn::RepairRequest end{
      .operation = conn::RepairOperation::kTellEnd,
      .seq = snapshot.rcv_nxt.value,
      .ack = snapshot.snd_una.value + (acknowledged ? 1 : 0),
      .window = static_cast<std::uint16_t>(std::min(snapshot.snd_wnd >> scale, 0xffffU)),
      .fin = snapshot.peer_closed()};
  if (deliver)
    conn::give_packets(snapshot.peer, here, conn::made_up_end(end), deliver);
  else
    conn::ask_helper(end, fd, "tell the end of the peer's direction (raw socket, CAP_NET_RAW)",
                     conn::kLongHelperPatience);
}

/// TCP_REPAIR has no way to say what the peer's clock has shown last. A bare acknowledgement of the peer says it: without, we should echo 0
/// until the peer speaks (RFC 7323, 4.1), and take old duplicates for new (5). The numbers are those that both sides know, so nothing is answered.
void tell_clock(const Snapshot& snapshot, const sys::Endpoint& here, const Deliver& deliver) {
  if (!deliver || !snapshot.timestamps || !snapshot.timestamps->ts_recent) return;
  conn::give_packets(snapshot.peer, here, conn::made_up_clock(snapshot), deliver);
}

/// The peer's FIN came before ours, if that has come: it tells LAST_ACK from CLOSING.
bool peer_closed_first(const Snapshot& snapshot) {
  return snapshot.state == TcpState::kCloseWait || snapshot.state == TcpState::kLastAck;
}

/// The packet that was made up is the only one that will ever say so.
void require_taken(int fd, const Snapshot& snapshot) {
  if (!needs_a_packet(snapshot)) return;
  constexpr int kLooks =
      200;  // a millisecond apart: it has been taken by the time deliver returns, but for a busy machine
  for (int i = 0; i < kLooks; ++i) {
    const auto info =
        conn::get_option<::tcp_info>(fd, IPPROTO_TCP, TCP_INFO, "getsockopt TCP_INFO");
    const bool closed = info.tcpi_state != BPF_TCP_ESTABLISHED &&
                        info.tcpi_state != BPF_TCP_FIN_WAIT1 &&
                        info.tcpi_state != BPF_TCP_FIN_WAIT2;
    if (closed || (!snapshot.peer_closed() && info.tcpi_state == BPF_TCP_FIN_WAIT2)) return;
    ::usleep(1000);
  }
  throw std::runtime_error("the kernel has not taken the packet that ends the peer's direction");
}

/// In repair, the send queue selected. The peer's clock first: our FIN echoes it.
void restore_first_ends(int fd, const Snapshot& snapshot, const sys::Endpoint& here,
                        const Deliver& deliver) {
  tell_clock(snapshot, here, deliver);
  if (peer_closed_first(snapshot)) {
    deliver_end(fd, snapshot, here, deliver);
    require_taken(fd, snapshot);
  }
  if (conn::fin_counts_as_sent(snapshot)) shut_down(fd);
}

/// Live.
void restore_last_ends(int fd, const Snapshot& snapshot, const sys::Endpoint& here,
                       const Deliver& deliver) {
  if (snapshot.closed() && !conn::fin_counts_as_sent(snapshot)) shut_down(fd);
  if (peer_closed_first(snapshot)) return;
  deliver_end(fd, snapshot, here, deliver);
  require_taken(fd, snapshot);
}

void end_silently(int fd) noexcept {
  try {
    conn::enter_repair(fd, conn::kLongHelperPatience);
  } catch (const std::system_error&) {  // it was in repair a moment ago, but a helper may be gone
  }
}

/// Empty: a helper does what must be done. (To tell the peer's clock need not.)
Deliver raw_delivery_or_helper(const Snapshot& snapshot, const sys::Endpoint& here) {
  const bool tells_clock = snapshot.timestamps && snapshot.timestamps->ts_recent;
  if (!needs_a_packet(snapshot) && !tells_clock) return {};
  try {
    return raw_delivery(here);
  } catch (const std::system_error& error) {
    const bool can_do_without = !needs_a_packet(snapshot) || conn::has_repair_helper();
    if (error.code().value() != EPERM || !can_do_without) throw;
  }
  return {};
}

}  // namespace

namespace conn {

/// Whether our FIN is put back as sent already. It is where the peer has acknowledged it. And where it may have come to the peer behind more
/// than the first window of a new connection takes (RFC 6928): the FIN would have to wait, and the peer's acknowledgements, which
/// cover it, would be refused as of bytes that were never sent. If it was not sent it is lost, and sent again like any other.
bool fin_counts_as_sent(const Snapshot& snapshot) {
  constexpr std::size_t kFirstWindow = 8;  // segments; 10 in the kernel
  if (snapshot.state == TcpState::kFinWait2) return true;
  const std::size_t mss = std::max<std::size_t>(snapshot.mss, 536);
  return snapshot.closed() && snapshot.unsent.empty() && snapshot.sent.size() > kFirstWindow * mss;
}

/// Whatever throws: the socket is closed while in repair, and so without a packet.
sys::UniqueFd resume_in_repair(const Snapshot& snapshot, const sys::Endpoint& here,
                               const Deliver& deliver, const ResumeKit* kit) {
  sys::UniqueFd socket = begin_resume(snapshot, here);
  restore_sent_side(socket.get(), snapshot, kit);
  restore_voice(socket.get(), snapshot, here, deliver);
  return socket;
}

sys::UniqueFd begin_resume(const Snapshot& snapshot, const sys::Endpoint& here) {
  refuse_what_contradicts_itself(snapshot, here);
  sys::UniqueFd socket = connected(snapshot, here);
  const int fd = socket.get();
  restore_options(fd, snapshot);
  if (snapshot.timestamps) restore_timestamps(fd, *snapshot.timestamps);
  restore_received(fd, snapshot.received);
  return socket;
}

void restore_sent_side(int fd, const Snapshot& snapshot, const ResumeKit* kit) {
  restore_sent(fd, snapshot.sent);
  restore_window(fd, snapshot);
  if (snapshot.settings) restore_settings(fd, !snapshot.peer.address.is_ipv4(), *snapshot.settings);
  if (kit != nullptr)  // after the algorithm has been chosen: some begin with numbers of their own
    kit->restore_congestion(fd, snapshot);
}

void restore_voice(int fd, const Snapshot& snapshot, const sys::Endpoint& here,
                   const Deliver& deliver) {
  restore_first_ends(fd, snapshot, here, deliver);
}

void finish_resume(int fd, const Snapshot& snapshot, const sys::Endpoint& here,
                   const Deliver& deliver) {
  try {
    go_live(fd, snapshot);
    restore_unsent(fd, snapshot.unsent);
    if (snapshot.settings) restore_buffers(fd, *snapshot.settings);
    restore_last_ends(fd, snapshot, here, deliver);
    set_option(fd, SOL_SOCKET, SO_REUSEADDR, int{1}, "setsockopt SO_REUSEADDR");
  } catch (...) {
    end_silently(fd);
    throw;
  }
}

}  // namespace conn

sys::UniqueFd repair_resume(const Snapshot& snapshot, std::optional<sys::Endpoint> local,
                            const Deliver& deliver, const ResumeKit* kit) {
  const sys::Endpoint here = local.value_or(snapshot.local);
  const Deliver give = deliver ? deliver : raw_delivery_or_helper(snapshot, here);  // may throw
  sys::UniqueFd socket = conn::resume_in_repair(snapshot, here, give, kit);
  conn::finish_resume(socket.get(), snapshot, here, give);
  return socket;
}

}  // namespace tcpmig
