// SPDX-License-Identifier: MIT
#pragma once
#include <chrono>
#include <cstdint>
#include <optional>

#include <tcpmig/freeze.hpp>
#include <tcpmig/resume.hpp>

#include "net/conn_world.hpp"

namespace conn_test {

/// One end of a connection on which both ends send all the time what follows from the position in the stream, and compare what they receive.
class Streamer {
 public:
  /// Sends `total` bytes and expects as many.
  explicit Streamer(std::uint64_t total) : total_(total) {}
  /// Sends and receives what can be at once. False: neither. Throws at a wrong byte, a reset, or an early end.
  bool turn(int fd);
  [[nodiscard]] bool done() const noexcept { return sent_ == total_ && received_ == total_; }
  [[nodiscard]] std::uint64_t progress() const noexcept { return sent_ + received_; }

 private:
  bool send_some(int fd);
  bool receive_some(int fd);
  std::uint64_t total_, sent_ = 0, received_ = 0;
};

/// A server's end that moves from host A to host B and back: freeze, encode, decode, resume, route, and what was captured is sent after it.
class MovingEnd {
 public:
  MovingEnd(World& world, tcpmig::sys::UniqueFd fd);
  /// To the other host. What is left of the move before it ends first. False: not now, for the client's data has a gap.
  bool move();
  /// The end of the socket that was left, when its host can hear no more of the client: some time after move().
  void finish_move();
  [[nodiscard]] int fd() const noexcept { return fd_.get(); }
  /// Segments of the client that the lock had no room for.
  [[nodiscard]] std::uint64_t captures_lost() const { return freeze_kit_.captures_lost(); }
  [[nodiscard]] unsigned moves() const noexcept { return moves_; }

 private:
  void forward_captures();
  World& world_;
  tcpmig::FreezeKit freeze_kit_;
  tcpmig::ResumeKit resume_kit_;
  tcpmig::sys::Tun tun_a_, tun_b_;
  tcpmig::sys::UniqueFd fd_;
  tcpmig::sys::Endpoint here_, client_;
  std::optional<tcpmig::Frozen> left_;
  bool at_a_ = true;
  unsigned moves_ = 0;
};

/// What came of moving a connection over and over.
struct Moved {
  unsigned moves = 0;
  std::chrono::nanoseconds took{};
  std::chrono::nanoseconds longest_pause{};  ///< in which the client neither sent nor received
  std::uint32_t sent_again = 0;              ///< segments of the client
  std::uint64_t captures_lost = 0;           ///< segments that the lock had no room for
  std::chrono::nanoseconds longest_move{};   ///< freeze begun to the captures forwarded
  unsigned refused = 0;                      ///< freezes, for a gap
};
/// `bytes` in each direction; a move whenever `next` says so (given the bytes so far in both directions, and the moves).
Moved stream_and_move(World& world, Family family, std::uint64_t bytes,
                      const std::function<bool(std::uint64_t, unsigned)>& next);

}  // namespace conn_test
