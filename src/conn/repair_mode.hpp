// SPDX-License-Identifier: MIT
#pragma once
#include <chrono>

#include "conn/repair_helper.hpp"

namespace tcpmig::conn {

/// TCP_REPAIR on: the kernel lets state be read and written, and close() sends nothing. It does NOT
/// stop the socket from accepting and acknowledging data (docs/kernel-notes.md): that is the lock's
/// work. Needs CAP_NET_ADMIN in the user namespace that owns the network namespace, or a helper that has it, which is waited
/// for as long as `patience`; not for a listener.
void enter_repair(int fd, std::chrono::milliseconds patience = kHelperPatience);
/// `ask`: TCP_REPAIR_OFF, which sends a window probe, so that the peer says what it has; else TCP_REPAIR_OFF_NO_WP, which does not. Clears SO_REUSEADDR (the
/// kernel sets it to "force" while in repair and to "no" afterwards): whoever cares sets it again.
void leave_repair(int fd, bool ask, std::chrono::milliseconds patience = kLongHelperPatience);
/// False also of what is no TCP socket.
bool is_in_repair(int fd) noexcept;

/// In repair while it lives; leaves it as it was, SO_REUSEADDR included.
class RepairVisit {
 public:
  explicit RepairVisit(int fd);
  ~RepairVisit();
  /// The end, before that of this object. Throws where a helper has to leave repair and cannot; then it is as before.
  void leave(std::chrono::milliseconds patience);
  /// The socket is closed in repair.
  void stay() noexcept { fd_ = -1; }
  RepairVisit(const RepairVisit&) = delete;
  RepairVisit& operator=(const RepairVisit&) = delete;

 private:
  int fd_;
  int reuse_address_;
};

/// By whose right this process uses TCP_REPAIR, tried on a socket of its own in this thread's network namespace. Throws std::system_error that says
/// why neither may: EPERM, or what the helper answers.
enum class RepairRight { kNone, kOwn, kHelpers };
RepairRight repair_right();

}  // namespace tcpmig::conn
