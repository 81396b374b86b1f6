// SPDX-License-Identifier: MIT
#include "conn/silent_visit.hpp"

#include <linux/tcp.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include <cstddef>
#include <system_error>
#include <utility>

#include "conn/socket_option.hpp"
#include "conn/timestamps.hpp"
#include "conn/window.hpp"

namespace tcpmig::conn {
namespace {

/// Ticks; as old as can be told from new (RFC 7323 5.2: half of the number space), and half of that for safety.
constexpr std::uint32_t kBehind = 1U << 30;
/// A clock is read and set with an error of one tick, since its lowest bit is a flag: never back.
constexpr std::uint32_t kRounding = 2;

void shut_peer_window(int fd, RepairWindow window) {
  window.snd_wnd = 0;
  set_window(fd, window);
}

/// A packet that was past the lock may have told a newer one.
void open_peer_window(int fd, std::uint32_t bytes) {
  RepairWindow window = dump_window(fd);
  if (window.snd_wnd != 0) return;
  window.snd_wnd = bytes;
  set_window(fd, window);
}

void move_clock(int fd, std::uint32_t ticks) {
  const auto now =
      get_option<std::uint32_t>(fd, IPPROTO_TCP, TCP_TIMESTAMP, "getsockopt TCP_TIMESTAMP");
  set_option(fd, IPPROTO_TCP, TCP_TIMESTAMP, now + ticks, "setsockopt TCP_TIMESTAMP");
}

}  // namespace

SilentVisit::SilentVisit(int fd) : fd_(fd), repair_(fd), window_(dump_window(fd)) {
  shut_peer_window(fd, window_);
  try {
    move_clock(fd, -kBehind);
  } catch (const std::system_error&) {
    open_peer_window(fd, window_.snd_wnd);
    throw;
  }
}

SilentVisit::~SilentVisit() {
  if (fd_ < 0) return;
  try {
    end();
  } catch (const std::system_error&) {  // of a helper that does not answer
    repair_->stay();
  }
}

void SilentVisit::end() {
  try {
    move_clock(fd_, kBehind + kRounding);
    open_peer_window(fd_, window_.snd_wnd);
  } catch (const std::system_error&) {  // it has ended meanwhile: nothing will be sent
  }
  try {
    repair_->leave(kLongHelperPatience);
  } catch (const std::system_error&) {
    shut_peer_window(fd_, dump_window(fd_));
    move_clock(fd_, -(kBehind + kRounding));
    throw;
  }
  send_what_waits(std::exchange(fd_, -1));
}

std::uint32_t SilentVisit::tsval() const { return dump_tsval(fd_) + kBehind; }

void SilentVisit::stay() noexcept {
  fd_ = -1;
  repair_->stay();
}

VoiceKept::VoiceKept(int fd) : tsval_(dump_tsval(fd)) {
  ::tcp_info info{};
  socklen_t length = sizeof info;
  if (::getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &length) < 0)
    sys::check("getsockopt TCP_INFO", -1);
  if (length >= offsetof(::tcp_info, tcpi_snd_wnd) + sizeof info.tcpi_snd_wnd)
    peer_window_ = info.tcpi_snd_wnd;
}

void VoiceKept::put_back(int fd) const noexcept {
  try {
    const auto since = static_cast<std::int32_t>(dump_tsval(fd) - tsval_);
    if (since < -static_cast<std::int32_t>(kBehind / 2)) move_clock(fd, kBehind + kRounding);
    open_peer_window(fd, peer_window_ ? *peer_window_ : dump_window(fd).max_window);
  } catch (const std::system_error&) {  // not in repair
  }
}

// To take off a cork that is not there does nothing else.
void send_what_waits(int fd) noexcept {
  int cork = 0;
  socklen_t length = sizeof cork;
  if (::getsockopt(fd, IPPROTO_TCP, TCP_CORK, &cork, &length) == 0 && cork == 0)
    ::setsockopt(fd, IPPROTO_TCP, TCP_CORK, &cork, sizeof cork);
}

}  // namespace tcpmig::conn
