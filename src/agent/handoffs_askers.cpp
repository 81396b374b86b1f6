// SPDX-License-Identifier: MIT
// Handoffs: programs that ask, and whoever else connects.
#include <sys/epoll.h>
#include <sys/socket.h>

#include <array>

#include "agent/guarded.hpp"
#include "agent/handoffs.hpp"
#include "agent/likeness.hpp"
#include "conn/socket_option.hpp"
#include "handover/handover.h"
#include "sys/check.hpp"

namespace tcpmig::agent {
namespace {

constexpr std::chrono::milliseconds kAskerPatience{1'000};
constexpr std::chrono::milliseconds kAcceptPause{100};

bool is_claim(const conn::Parcel& parcel) {
  return conn::verb_of(parcel) == HANDOVER_CLAIM &&
         parcel.bytes.size() == sizeof(handover_message) && parcel.descriptors.size() == 1;
}

}  // namespace

void Handoffs::on_events() {
  std::array<epoll_event, 64> events{};
  const int count = ::epoll_wait(epoll_.get(), events.data(), events.size(), 0);
  for (int i = 0; i < count; ++i) {
    const int fd = events[static_cast<std::size_t>(i)].data.fd;
    guarded("handover", [&] {
      if (fd == listener_.get()) return accept_askers();
      if (fd == offered_.events_fd()) return offered_.consume();
      if (askers_.contains(fd)) return hear_asker(fd);
      const auto flow = flows_.find(fd);
      if (flow == flows_.end()) return;  // ended by an event before this one
      const auto entry = waiting_.find(flow->second);
      if (entry->second.ticket)
        hear_ticket(entry);
      else
        hear_program(entry);
    });
  }
}

void Handoffs::accept_askers() {
  while (askers_.size() < kMostAskers && aside_.is_free()) {
    sys::UniqueFd fd(::accept4(listener_.get(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
    if (!fd && (errno == EAGAIN || errno == ECONNABORTED || errno == EINTR)) return;
    if (!fd) break;  // no descriptor left
    const uid_t user =
        conn::get_option<ucred>(fd.get(), SOL_SOCKET, SO_PEERCRED, "SO_PEERCRED").uid;
    if (askers_of_[user] >= kMostOfOneUser) {
      ++counters_.askers_dropped;
      aside_.close(std::move(fd));
      continue;
    }
    const int number = fd.get();
    ++askers_of_[user];
    askers_[number] = {std::move(fd), Clock::now() + kAskerPatience, user};
    watch(number, EPOLLIN);
  }
  watch(listener_.get(), 0);
  next_accept_ = Clock::now() + kAcceptPause;
}

void Handoffs::hear_asker(int fd) {
  std::optional<conn::Parcel> parcel;
  try {
    parcel = conn::receive_parcel(fd);
  } catch (const std::system_error& error) {
    if (error.code().value() == EAGAIN) return;
  }
  sys::UniqueFd channel = forget_asker(fd);
  if (parcel && is_claim(*parcel))
    return claim(std::move(channel), std::move(parcel->descriptors[0]));
  // whoever keeps it listens for nothing more
  sys::check("epoll_ctl", ::epoll_ctl(epoll_.get(), EPOLL_CTL_DEL, fd, nullptr));
  if (parcel && others_) others_(channel, *parcel);
  if (parcel) close_all(*parcel);
  aside_.close(std::move(channel));
}

/// How long that takes is a stranger's choice.
void Handoffs::close_all(conn::Parcel& parcel) {
  for (sys::UniqueFd& descriptor : parcel.descriptors) aside_.close(std::move(descriptor));
}

sys::UniqueFd Handoffs::forget_asker(int fd) {
  Asker asker = std::move(askers_.extract(fd).mapped());
  if (const auto user = askers_of_.find(asker.user); --user->second == 0) askers_of_.erase(user);
  return std::move(asker.channel);
}

void Handoffs::claim(sys::UniqueFd channel, sys::UniqueFd accepted) {
  const auto seen = look_at(accepted.get());
  if (!seen || doors_.answered(seen->from, seen->to, accepted.get())) {
    handover_send(channel.get(), HANDOVER_NOTHING, -1);
    aside_.close(std::move(channel));
    aside_.close(std::move(accepted));
    return;
  }
  for (auto entry = waiting_.begin(); entry != waiting_.end(); ++entry) {
    const auto& ticket = entry->second.ticket;
    if (!ticket || ticket->from != seen->from || ticket->to != seen->to) continue;
    if (!in_same_namespace(ticket->fd.get(), accepted.get())) break;
    return offer(entry, std::move(channel), *seen, std::move(accepted));
  }
  ++counters_.strangers;
  handover_send(channel.get(), HANDOVER_STRANGER, -1);
  aside_.close(std::move(channel));
  aside_.close(std::move(accepted));
}

}  // namespace tcpmig::agent
