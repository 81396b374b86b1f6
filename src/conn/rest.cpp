// SPDX-License-Identifier: MIT
#include "conn/rest.hpp"

#include <linux/socket.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <system_error>
#include <type_traits>
#include <utility>

#include "conn/queues.hpp"
#include "conn/repair_steps.hpp"
#include "sys/check.hpp"

namespace tcpmig::conn {
namespace {

struct Head {
  std::uint32_t send_buffer = 0;
  std::uint8_t send_buffer_fixed = 0;
  std::uint8_t closes = 0;
  std::uint16_t unused = 0;
};
static_assert(std::is_trivially_copyable_v<Head> && sizeof(Head) == 8);

TcpState before_closing(TcpState state) {
  return peer_has_closed(state) ? TcpState::kCloseWait : TcpState::kEstablished;
}

void end_by_reset(int fd) noexcept {
  const linger at_once{1, 0};
  ::setsockopt(fd, SOL_SOCKET, SO_LINGER, &at_once, sizeof at_once);
}

/// Of which a program may have as much as net.core.wmem_max allows.
void restore_send_buffer(int fd, const Head& head) {
  if (head.send_buffer == 0) return;
  const int half = static_cast<int>(std::min(head.send_buffer, 1U << 30) / 2);
  ::setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &half, sizeof half);
  int fixed = 0;
  socklen_t length = sizeof fixed;
  if (::getsockopt(fd, SOL_SOCKET, SO_BUF_LOCK, &fixed, &length) < 0) return;  // before Linux 5.14
  fixed = (fixed & SOCK_RCVBUF_LOCK) | (head.send_buffer_fixed != 0 ? SOCK_SNDBUF_LOCK : 0);
  ::setsockopt(fd, SOL_SOCKET, SO_BUF_LOCK, &fixed, sizeof fixed);
}

}  // namespace

std::optional<Rest> take_rest(Snapshot& snapshot) {
  const bool closes = snapshot.closed() && !fin_counts_as_sent(snapshot);
  if (snapshot.unsent.empty() && !closes) return std::nullopt;
  Rest rest{.unsent = std::exchange(snapshot.unsent, {}), .closes = closes};
  if (closes) snapshot.state = before_closing(snapshot.state);
  if (snapshot.settings) {
    rest.send_buffer = std::exchange(snapshot.settings->send_buffer, 0);
    rest.send_buffer_fixed = std::exchange(snapshot.settings->send_buffer_fixed, false);
  }
  return rest;
}

std::vector<std::byte> encode_rest(const Rest& rest) {
  const Head head{.send_buffer = rest.send_buffer,
                  .send_buffer_fixed = rest.send_buffer_fixed,
                  .closes = rest.closes};
  std::vector<std::byte> encoded(sizeof head + rest.unsent.size());
  std::memcpy(encoded.data(), &head, sizeof head);
  std::ranges::copy(rest.unsent, encoded.begin() + sizeof head);
  return encoded;
}

void write_rest(int fd, std::span<const std::byte> encoded) {
  Head head;
  if (encoded.size() < sizeof head) {
    end_by_reset(fd);
    throw std::system_error(EBADMSG, std::generic_category(), "what is to be sent first");
  }
  std::memcpy(&head, encoded.data(), sizeof head);
  try {
    restore_unsent(fd, encoded.subspan(sizeof head));
    if (head.closes != 0) sys::check("shutdown", ::shutdown(fd, SHUT_WR));
  } catch (const std::system_error& error) {
    const int code = error.code().value();
    if (code == EPIPE || code == ECONNRESET || code == ETIMEDOUT || code == ENOTCONN) return;
    end_by_reset(fd);
    throw;
  }
  restore_send_buffer(fd, head);
}

}  // namespace tcpmig::conn
