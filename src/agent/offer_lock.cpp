// SPDX-License-Identifier: MIT
#include "agent/offer_lock.hpp"

#include <sys/socket.h>

#include <utility>

#include "conn/socket_lock.hpp"
#include "conn/socket_option.hpp"

namespace tcpmig::agent {
void OfferLock::put_on(int fd) {
  if (!kit_)
    kit_ = std::make_unique<FreezeKit>(FreezeKit::Options{
        .use_dump_program = false, .cgroup_name = {}, .keep_window_small = false});
  conn::SocketLock(fd, kit_->lock_program_fd()).keep();
  captured_[conn::socket_cookie(fd)];
}

void OfferLock::take_off(int fd) { conn::open_lock(fd); }

void OfferLock::consume() {
  if (!kit_) return;
  kit_->consume_captures([this](CapturedSegment segment) {
    const auto of = captured_.find(segment.cookie);
    if (of == captured_.end()) return;  // of a connection that nobody will ever have
    if (of->second.size() < most_)
      of->second.push_back(std::move(segment));
    else
      ++counters_.captures_dropped;
  });
  const std::uint64_t lost = kit_->captures_lost();
  counters_.captures_lost += lost - std::exchange(lost_, lost);
}

std::vector<CapturedSegment> OfferLock::take(int fd) {
  consume();
  auto of = captured_.extract(conn::socket_cookie(fd));
  return of.empty() ? std::vector<CapturedSegment>{} : std::move(of.mapped());
}

void OfferLock::forget(int fd) { counters_.captures_dropped += take(fd).size(); }

}  // namespace tcpmig::agent
