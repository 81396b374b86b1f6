// SPDX-License-Identifier: MIT
// The recipe of a restore, in the order of libsoccr (CRIU): one call for each kernel fact.
#include <arpa/inet.h>
#include <linux/bpf.h>  // the TCP states
#include <linux/tcp.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <stdexcept>

#include <tcpmig/resume.hpp>

#include "conn/endpoints.hpp"
#include "conn/queues.hpp"
#include "conn/raw_delivery.hpp"
#include "conn/repair_mode.hpp"
#include "conn/segment.hpp"
#include "conn/settings.hpp"
#include "conn/socket_option.hpp"
#include "conn/tcp_options.hpp"
#include "conn/timestamps.hpp"
#include "conn/window.hpp"
#include "sys/sock_diag.hpp"

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
  return socket && socket->state == BPF_TCP_TIME_WAIT && diag.destroy(*socket);
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

/// Leaving repair mode clears SO_REUSEADDR. A peer that owes us an acknowledgement (it was dropped by the lock, or the bytes were lost) is
/// asked at once, or we should hear of it only after the retransmission timeout of a new connection, 1 s.
void go_live(int fd, const Snapshot& snapshot) {
  conn::leave_repair(fd, !snapshot.sent.empty());
  conn::set_option(fd, SOL_SOCKET, SO_REUSEADDR, int{1}, "setsockopt SO_REUSEADDR");
}

bool needs_a_packet(const Snapshot& snapshot) {
  return snapshot.peer_closed() || snapshot.state == TcpState::kFinWait2;
}

/// The peer's packet that closed its direction, or acknowledged that we had closed ours.
void deliver_end(const Snapshot& snapshot, const sys::Endpoint& here, const Deliver& deliver) {
  if (!needs_a_packet(snapshot)) return;
  const bool acknowledged = snapshot.state == TcpState::kFinWait2;
  tcphdr tcp{};
  tcp.doff = sizeof(tcp) / 4;
  tcp.ack = 1;
  tcp.fin = snapshot.peer_closed();
  tcp.seq = htonl(snapshot.rcv_nxt.value);
  tcp.ack_seq = htonl(snapshot.snd_una.value + (acknowledged ? 1 : 0));
  const unsigned scale = snapshot.wscale ? snapshot.wscale->snd : 0;
  tcp.window = htons(static_cast<std::uint16_t>(std::min(snapshot.snd_wnd >> scale, 0xffffU)));
  // No timestamp: what the peer's clock shows is not known, and one that is too old would be dropped.
  conn::give_packets(snapshot.peer, here, std::as_bytes(std::span(&tcp, 1)), deliver);
}

/// Our own end, in the order in which the two ends came: it tells LAST_ACK from CLOSING.
void restore_ends(int fd, const Snapshot& snapshot, const sys::Endpoint& here,
                  const Deliver& deliver) {
  const bool first = snapshot.state != TcpState::kLastAck;
  const bool ours = snapshot.closed() && snapshot.state != TcpState::kFinWait2;
  if (ours && first) shut_down(fd);
  deliver_end(snapshot, here, deliver);
  if (ours && !first) shut_down(fd);
}

void end_silently(int fd) noexcept {
  try {
    conn::enter_repair(fd);
  } catch (const std::system_error&) {  // it was in repair a moment ago
  }
}

}  // namespace

sys::UniqueFd repair_resume(const Snapshot& snapshot, std::optional<sys::Endpoint> local,
                            const Deliver& deliver) {
  const sys::Endpoint here = local.value_or(snapshot.local);
  refuse_what_contradicts_itself(snapshot, here);
  const Deliver give = deliver || !needs_a_packet(snapshot)
                           ? deliver
                           : conn::raw_delivery(here);  // may throw: first
  // Whatever throws below: the socket is closed while in repair, and so without a packet.
  sys::UniqueFd socket = connected(snapshot, here);
  const int fd = socket.get();
  conn::restore_options(fd, snapshot);
  if (snapshot.timestamps) conn::restore_timestamps(fd, *snapshot.timestamps);
  conn::restore_received(fd, snapshot.received);
  conn::restore_sent(fd, snapshot.sent);
  conn::restore_window(fd, snapshot);
  if (snapshot.settings)
    conn::restore_settings(fd, !snapshot.peer.address.is_ipv4(), *snapshot.settings);
  // The send queue is selected: a FIN that the peer has acknowledged counts as sent, and is not sent.
  if (snapshot.state == TcpState::kFinWait2) shut_down(fd);
  try {
    go_live(fd, snapshot);
    conn::restore_unsent(fd, snapshot.unsent);
    restore_ends(fd, snapshot, here, give);
  } catch (...) {
    end_silently(fd);
    throw;
  }
  return socket;
}

}  // namespace tcpmig
