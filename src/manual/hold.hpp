// SPDX-License-Identifier: MIT
#pragma once
#include <chrono>
#include <optional>

#include "conn/endpoints.hpp"
#include "sys/unique_fd.hpp"

/// Between freeze and resume a connection is nowhere: to what its peer sends meanwhile the kernel would answer by RST. So a process holds its
/// place (conn/placeholder.hpp) for a while, and hands it to whoever goes on with the connection in the same network namespace. They meet at a Unix
/// socket whose abstract name is made of the four-tuple: such names belong to a network namespace, and need no clean-up.
namespace tcpmig::manual {

/// Where a holder waits for whoever goes on. In this thread's network namespace. Throws sys::AlreadyRunning: somebody holds that very place.
sys::UniqueFd open_meeting_point(const conn::Endpoints& ends);

/// The holder's work: hands the placeholder to everybody of this user, or root, who asks, until one has said that the connection lives and has ended
/// or executed its program since (true), or the time is over (false).
bool hold(int meeting_point, int placeholder, std::chrono::steady_clock::time_point until);

/// The placeholder of a connection that is about to go on here, stepped aside, so that there can be a socket of the same four-tuple. Its descriptors
/// close on exec(), by which the holder learns that a place that was said to be taken is so; destroyed here it steps back, and is held on.
class HeldPlace {
 public:
  /// In this thread's network namespace; nullopt: nobody holds this place.
  static std::optional<HeldPlace> find(const conn::Endpoints& ends);
  HeldPlace(HeldPlace&&) noexcept = default;
  HeldPlace& operator=(HeldPlace&&) = delete;
  ~HeldPlace();
  /// The connection lives: should this process be killed its kernel ends it as it ends others.
  void taken() noexcept;

 private:
  void say(char word) const noexcept;
  HeldPlace(sys::UniqueFd holder, sys::UniqueFd placeholder, int bound);
  sys::UniqueFd holder_, placeholder_;
  int bound_;
};

}  // namespace tcpmig::manual
