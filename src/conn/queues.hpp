// SPDX-License-Identifier: MIT
#pragma once
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include <tcpmig/snapshot.hpp>

namespace tcpmig::conn {

/// The two queues of a connection as TCP_REPAIR names them (TCP_RECV_QUEUE, TCP_SEND_QUEUE).
enum class Queue : int { kReceive = 1, kSend = 2 };

/// The sequence number after the last byte in the queue: rcv_nxt, or write_seq (which is snd_nxt
/// only when nothing is unsent). In repair.
Seq dump_queue_end(int fd, Queue queue);
/// The sequence number before the first byte that will be in the queue: the end minus its length.
/// In repair, after bind, before connect: the kernel takes it only in state CLOSE and with empty
/// queues.
void restore_queue_start(int fd, Queue queue, Seq start);

/// Bytes in the queues; in state ESTABLISHED only (a FIN counts as one byte in some of them).
struct QueueLengths {
  std::uint32_t received = 0;        ///< SIOCINQ: acknowledged, not read
  std::uint32_t unacknowledged = 0;  ///< SIOCOUTQ: write_seq - snd_una, what is unsent included
  std::uint32_t unsent = 0;          ///< SIOCOUTQNSD
};
QueueLengths dump_queue_lengths(int fd);
/// The first of them.
std::uint32_t dump_received_length(int fd);

/// Reads (and consumes) at most `count` bytes that are there, without waiting, and appends them.
/// Not in repair (EPERM there).
void read_received(int fd, std::size_t count, std::vector<std::byte>& into);
/// The same without consuming: everything that is there.
std::vector<std::byte> peek_received(int fd);
/// Everything in one of the queues, without consuming it: the send queue from snd_una on, what is unsent at its end. In repair, no
/// queue selected afterwards. `expected`: bytes that should be there; less come back where the reader or the peer was quicker.
std::vector<std::byte> peek_queue(int fd, Queue queue, std::size_t expected);
/// Makes room for so many bytes in the send queue. (The kernel counts what a segment costs, not what it holds: at most twice as much.)
void reserve_send_space(int fd, std::size_t bytes);
/// In repair, as long as the send queue is selected, the kernel sends nothing new: it only notes it as sent (net/ipv4/tcp_output.c,
/// tcp_write_xmit). What was sent before may be sent again.
void hold_sending(int fd);

/// Puts bytes into the receive queue, as if they had arrived and been acknowledged. In repair,
/// connected.
void restore_received(int fd, std::span<const std::byte> bytes);
/// Puts bytes into the send queue as if they had been sent: snd_nxt counts them, no packet leaves. In repair, connected, options restored; the
/// send queue stays selected.
void restore_sent(int fd, std::span<const std::byte> bytes);
/// Writes what the application had written and TCP had not sent. Not in repair any more, for it goes out as windows allow; before the
/// window is restored it would go into a window of zero, and wait for the probe timer.
void restore_unsent(int fd, std::span<const std::byte> bytes);

}  // namespace tcpmig::conn
