// SPDX-License-Identifier: MIT
#pragma once
#include <cstdint>
#include <optional>

#include <tcpmig/snapshot.hpp>

#include "conn/repair_mode.hpp"

namespace tcpmig::conn {

/// In repair, and harmless to who goes on with the connection, while it lives; then as it was, and what waits is sent.
///
/// The peer's window counts as shut, so that nothing new is sent: what counts as sent was sent. (But while the send queue is selected: then
/// whatever would make a socket send, a timer say, makes it take all for sent, and nothing leaves: net/ipv4/tcp_output.c, tcp_write_xmit(),
/// "goto repair". The next owner, which has no round-trip time, would learn of that by a retransmission timeout of 3 s. So what is sent is
/// to be asked before that queue is selected for the first time.)
///
/// Its timestamps are old, so that the peer ignores what timers still send (an acknowledgement, a retransmission). With the time of day they
/// would be newer than those that the next owner begins with, whose packets the peer would then drop (PAWS, RFC 7323 5.3).
class SilentVisit {
 public:
  /// Throws std::system_error: the socket is as it was.
  explicit SilentVisit(int fd);
  ~SilentVisit();
  SilentVisit(const SilentVisit&) = delete;
  SilentVisit& operator=(const SilentVisit&) = delete;
  /// As it was before.
  [[nodiscard]] const RepairWindow& window() const noexcept { return window_; }
  /// What dump_tsval() would say. Throws std::system_error.
  [[nodiscard]] std::uint32_t tsval() const;
  /// The end, before that of this object. Throws std::system_error where a helper has to leave repair and does not answer (kLongHelperPatience):
  /// it is as before then.
  void end();
  /// The socket is closed in repair.
  void stay() noexcept;

 private:
  int fd_;
  std::optional<RepairVisit> repair_;
  RepairWindow window_;
};

/// For who looks after a socket: what a SilentVisit changes, as it was before it, to be put back if its process is killed. (Repair itself is
/// not left: RepairVisit.)
class VoiceKept {
 public:
  /// Not in a SilentVisit. Throws std::system_error.
  explicit VoiceKept(int fd);
  /// For one that was written down.
  struct Values {
    std::uint32_t tsval = 0;
    std::optional<std::uint32_t> peer_window;  ///< bytes; nullopt: this kernel does not say
  };
  explicit VoiceKept(const Values& values) noexcept
      : peer_window_(values.peer_window), tsval_(values.tsval) {}
  [[nodiscard]] Values values() const noexcept { return {tsval_, peer_window_}; }
  /// In repair; else nothing was changed, or all was put back.
  void put_back(int fd) const noexcept;

 private:
  std::optional<std::uint32_t> peer_window_;  ///< bytes; nullopt: this kernel does not say
  std::uint32_t tsval_;
};

/// Makes the kernel look at what waits to be sent, after a SilentVisit and repair have ended.
void send_what_waits(int fd) noexcept;

}  // namespace tcpmig::conn
