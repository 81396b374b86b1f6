// SPDX-License-Identifier: MIT
#include "manual/hold.hpp"

#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <cstddef>
#include <cstring>
#include <string>
#include <thread>
#include <utility>

#include <tcpmig/resume.hpp>

#include "conn/placeholder.hpp"
#include "conn/socket_option.hpp"
#include "sys/check.hpp"
#include "sys/errors.hpp"

namespace tcpmig::manual {
namespace {

using Clock = std::chrono::steady_clock;

struct Name {
  sockaddr_un address{};
  socklen_t length = 0;
  [[nodiscard]] const sockaddr* get() const { return reinterpret_cast<const sockaddr*>(&address); }
};

/// Begins with a zero byte: an abstract name (unix(7)). The longest four-tuple in IPv6 has 2 * 47 characters.
Name name_of(const conn::Endpoints& ends) {
  const std::string text = "tcpmig " + ends.local.str() + " " + ends.peer.str();
  Name name;
  name.address.sun_family = AF_UNIX;
  if (text.size() + 1 > sizeof(name.address.sun_path)) throw std::length_error("name of a hold");
  std::memcpy(name.address.sun_path + 1, text.data(), text.size());
  name.length = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + 1 + text.size());
  return name;
}

sys::UniqueFd open_unix_socket() {
  return sys::UniqueFd(sys::check("socket", ::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0)));
}

/// Abstract names are everybody's: only root, and whoever we are ourselves, is trusted at the other end.
bool is_trusted(int fd) {
  ucred other{};
  socklen_t length = sizeof(other);
  return ::getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &other, &length) == 0 &&
         (other.uid == 0 || other.uid == ::geteuid());
}

bool readable_before(int fd, Clock::time_point until) {
  const auto left = std::chrono::ceil<std::chrono::milliseconds>(until - Clock::now()).count();
  pollfd entry{.fd = fd, .events = POLLIN, .revents = 0};
  return left > 0 && ::poll(&entry, 1, static_cast<int>(std::min<long>(left, 1'000'000))) == 1;
}

constexpr char kTaken = 't', kBack = 'b';

/// One taker: true when it has taken the place for good.
bool serve(int taker, int placeholder, Clock::time_point until) {
  if (!is_trusted(taker)) return false;
  try {
    send_descriptor(taker, placeholder, "");
  } catch (const std::exception&) {
    return false;  // it has gone
  }
  char last = 0;
  for (;;) {
    char word = 0;
    if (!readable_before(taker, until) || ::read(taker, &word, 1) != 1) return last == kTaken;
    last = word;
  }
}

void bind_meeting_point(int fd, const conn::Endpoints& ends) {
  const Name name = name_of(ends);
  // the holder of a connection that has just been taken is about to end
  const auto until = Clock::now() + std::chrono::milliseconds(500);
  while (::bind(fd, name.get(), name.length) < 0) {
    if (errno != EADDRINUSE) sys::check("bind a Unix socket", -1);
    if (Clock::now() > until)
      throw sys::AlreadyRunning("the place of the connection from " + ends.peer.str() + " to " +
                                ends.local.str() + " is held already, by another freeze");
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  }
}

}  // namespace

sys::UniqueFd open_meeting_point(const conn::Endpoints& ends) {
  sys::UniqueFd fd = open_unix_socket();
  bind_meeting_point(fd.get(), ends);
  sys::check("listen", ::listen(fd.get(), 1));
  return fd;
}

bool hold(int meeting_point, int placeholder, Clock::time_point until) {
  while (readable_before(meeting_point, until)) {
    const sys::UniqueFd taker(::accept4(meeting_point, nullptr, nullptr, SOCK_CLOEXEC));
    if (taker && serve(taker.get(), placeholder, until)) return true;
  }
  return false;
}

std::optional<HeldPlace> HeldPlace::find(const conn::Endpoints& ends) {
  const Name name = name_of(ends);
  sys::UniqueFd holder = open_unix_socket();
  const timeval limit{.tv_sec = 2, .tv_usec = 0};  // anybody may listen at that name
  conn::set_option(holder.get(), SOL_SOCKET, SO_SNDTIMEO, limit, "setsockopt SO_SNDTIMEO");
  if (::connect(holder.get(), name.get(), name.length) < 0) {
    if (errno == ECONNREFUSED || errno == EAGAIN) return std::nullopt;
    sys::check("connect to the holder of the connection's place", -1);
  }
  if (!is_trusted(holder.get())) return std::nullopt;
  conn::set_option(holder.get(), SOL_SOCKET, SO_RCVTIMEO, limit, "setsockopt SO_RCVTIMEO");
  auto received = receive_descriptor(holder.get());
  if (!received) return std::nullopt;
  const int bound = conn::step_aside(received->first.get(), ends.peer);
  return HeldPlace(std::move(holder), std::move(received->first), bound);
}

HeldPlace::HeldPlace(sys::UniqueFd holder, sys::UniqueFd placeholder, int bound)
    : holder_(std::move(holder)), placeholder_(std::move(placeholder)), bound_(bound) {}

HeldPlace::~HeldPlace() {
  if (!placeholder_) return;
  conn::step_back(placeholder_.get(), bound_);
  say(kBack);
}

void HeldPlace::taken() noexcept { say(kTaken); }

void HeldPlace::say(char word) const noexcept {
  [[maybe_unused]] const auto sent = ::send(holder_.get(), &word, 1, MSG_NOSIGNAL);
}

}  // namespace tcpmig::manual
