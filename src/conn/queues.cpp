// SPDX-License-Identifier: MIT
#include "conn/queues.hpp"

#include <linux/sockios.h>
#include <linux/tcp.h>
#include <netinet/in.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <stdexcept>
#include <string>

#include "conn/repair_helper.hpp"
#include "conn/socket_option.hpp"

namespace tcpmig::conn {
namespace {

static_assert(static_cast<int>(Queue::kReceive) == TCP_RECV_QUEUE);
static_assert(static_cast<int>(Queue::kSend) == TCP_SEND_QUEUE);

constexpr std::size_t kLargestChunk = 64 << 10;
constexpr std::size_t kSmallestChunk = 1 << 10;

void select_queue(int fd, int queue) {
  set_option(fd, IPPROTO_TCP, TCP_REPAIR_QUEUE, queue, "setsockopt TCP_REPAIR_QUEUE");
}

std::uint32_t queue_length(int fd, unsigned long request, const char* what) {
  int length = 0;
  if (::ioctl(fd, request, &length) < 0) sys::check(what, -1);
  return static_cast<std::uint32_t>(length);
}

/// A segment that is acknowledged in part stays whole in the queue: so much may be there before snd_una.
constexpr std::size_t kLargestSegment = 512 << 10;

void send_all(int fd, std::span<const std::byte> bytes, const char* what) {
  while (!bytes.empty())
    bytes = bytes.subspan(static_cast<std::size_t>(
        sys::check(what, ::send(fd, bytes.data(), bytes.size(), MSG_DONTWAIT | MSG_NOSIGNAL))));
}

/// Makes room for a queue that the socket's own buffer would refuse (ENOMEM), and lets the kernel's
/// autotuning have the buffer again: setting it switches that off for good (SO_BUF_LOCK,
/// Linux 5.14, switches it on).
void reserve_receive_space(int fd, std::size_t bytes) {
  const int present = get_option<int>(fd, SOL_SOCKET, SO_RCVBUF, "getsockopt SO_RCVBUF");
  if (bytes <= static_cast<std::size_t>(present) / 2) return;
  set_privileged(fd, SO_RCVBUFFORCE, static_cast<int>(bytes), RepairOperation::kReceiveBuffer,
                 "setsockopt SO_RCVBUFFORCE");
  const int unlocked = 0;
  ::setsockopt(fd, SOL_SOCKET, SO_BUF_LOCK, &unlocked, sizeof(unlocked));
}

}  // namespace

Seq dump_queue_end(int fd, Queue queue) {
  select_queue(fd, static_cast<int>(queue));
  const Seq end{
      get_option<std::uint32_t>(fd, IPPROTO_TCP, TCP_QUEUE_SEQ, "getsockopt TCP_QUEUE_SEQ")};
  select_queue(fd, TCP_NO_QUEUE);
  return end;
}

void restore_queue_start(int fd, Queue queue, Seq start) {
  select_queue(fd, static_cast<int>(queue));
  set_option(fd, IPPROTO_TCP, TCP_QUEUE_SEQ, start.value, "setsockopt TCP_QUEUE_SEQ");
  select_queue(fd, TCP_NO_QUEUE);
}

std::uint32_t dump_received_length(int fd) { return queue_length(fd, SIOCINQ, "ioctl SIOCINQ"); }

QueueLengths dump_queue_lengths(int fd) {
  return {.received = dump_received_length(fd),
          .unacknowledged = queue_length(fd, SIOCOUTQ, "ioctl SIOCOUTQ"),
          .unsent = queue_length(fd, SIOCOUTQNSD, "ioctl SIOCOUTQNSD")};
}

void read_received(int fd, std::size_t count, std::vector<std::byte>& into) {
  const std::size_t before = into.size();
  into.resize(before + count);
  const ssize_t got = ::recv(fd, into.data() + before, count, MSG_DONTWAIT);
  const int error = errno;
  into.resize(before + (got > 0 ? static_cast<std::size_t>(got) : 0));
  if (got < 0 && error != EAGAIN) throw std::system_error(error, std::generic_category(), "recv");
}

std::vector<std::byte> peek_received(int fd) {
  std::vector<std::byte> bytes(queue_length(fd, SIOCINQ, "ioctl SIOCINQ"));
  if (bytes.empty()) return bytes;
  const ssize_t got = ::recv(fd, bytes.data(), bytes.size(), MSG_DONTWAIT | MSG_PEEK);
  if (got < 0 && errno != EAGAIN) sys::check("recv MSG_PEEK", -1);
  bytes.resize(got > 0 ? static_cast<std::size_t>(got) : 0);
  return bytes;
}

std::vector<std::byte> peek_queue(int fd, Queue queue, std::size_t expected) {
  if (expected == 0) return {};
  // First: a pacing timer that ends while the send queue is selected makes the kernel take for sent what never left.
  std::vector<std::byte> bytes(expected + (queue == Queue::kSend ? kLargestSegment : 0));
  select_queue(fd, static_cast<int>(queue));
  const ssize_t got = ::recv(fd, bytes.data(), bytes.size(), MSG_DONTWAIT | MSG_PEEK);
  const int error = errno;
  select_queue(fd, TCP_NO_QUEUE);
  if (got < 0 && error != EAGAIN)
    throw std::system_error(error, std::generic_category(), "recv MSG_PEEK in repair");
  bytes.resize(got > 0 ? static_cast<std::size_t>(got) : 0);
  if (bytes.size() > expected)
    bytes.erase(bytes.begin(), bytes.end() - static_cast<std::ptrdiff_t>(expected));
  return bytes;
}

void reserve_send_space(int fd, std::size_t bytes) {
  const int present = get_option<int>(fd, SOL_SOCKET, SO_SNDBUF, "getsockopt SO_SNDBUF");
  const std::size_t wanted = 2 * bytes + kLargestChunk;
  if (wanted <= static_cast<std::size_t>(present)) return;
  set_privileged(fd, SO_SNDBUFFORCE, static_cast<int>(wanted), RepairOperation::kSendBuffer,
                 "setsockopt SO_SNDBUFFORCE");
  const int unlocked = 0;
  ::setsockopt(fd, SOL_SOCKET, SO_BUF_LOCK, &unlocked, sizeof(unlocked));
}

void hold_sending(int fd) { select_queue(fd, TCP_SEND_QUEUE); }

void restore_sent(int fd, std::span<const std::byte> bytes) {
  hold_sending(fd);
  if (bytes.empty()) return;
  reserve_send_space(fd, bytes.size());
  send_all(fd, bytes, "send into the send queue");
  if (const auto left = queue_length(fd, SIOCOUTQNSD, "ioctl SIOCOUTQNSD"); left != 0)
    throw std::runtime_error("the kernel has not taken " + std::to_string(left) +
                             " restored bytes for sent");
}

void restore_unsent(int fd, std::span<const std::byte> bytes) {
  if (bytes.empty()) return;
  const std::uint32_t sent = queue_length(fd, SIOCOUTQ, "ioctl SIOCOUTQ");
  reserve_send_space(fd, sent + bytes.size());
  // TCP_NOTSENT_LOWAT, the system's or the application's, lets no more in than it says
  const int lowat = get_option<int>(fd, IPPROTO_TCP, TCP_NOTSENT_LOWAT, "getsockopt NOTSENT_LOWAT");
  set_option(fd, IPPROTO_TCP, TCP_NOTSENT_LOWAT, int{-1}, "setsockopt TCP_NOTSENT_LOWAT");
  send_all(fd, bytes, "send what was not sent");
  set_option(fd, IPPROTO_TCP, TCP_NOTSENT_LOWAT, lowat, "setsockopt TCP_NOTSENT_LOWAT");
}

void restore_received(int fd, std::span<const std::byte> bytes) {
  if (bytes.empty()) return;
  reserve_receive_space(fd, bytes.size());
  select_queue(fd, TCP_RECV_QUEUE);
  // The kernel wants one piece of memory for each chunk, and may not find it (libsoccr halves,
  // too).
  std::size_t chunk = kLargestChunk;
  while (!bytes.empty()) {
    const ssize_t put = ::send(fd, bytes.data(), std::min(chunk, bytes.size()), 0);
    if (put < 0 && errno == ENOMEM && chunk > kSmallestChunk) {
      chunk /= 2;
      continue;
    }
    bytes = bytes.subspan(static_cast<std::size_t>(sys::check("send into the receive queue", put)));
  }
  select_queue(fd, TCP_NO_QUEUE);
}

}  // namespace tcpmig::conn
