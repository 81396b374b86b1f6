// SPDX-License-Identifier: MIT
#pragma once
#include <cstdint>
#include <optional>

namespace tcpmig::dispatcher {

/// How long the kernel's queue of a listener may become (listen(2), backlog).
///
/// Long, as long as it runs empty again and again: a crowd that comes at once is queued, and served. A queue that has not been
/// empty for a while only makes everybody wait, in the end longer than clients have patience: then all work goes to those
/// who have given up, and overload becomes a collapse. So such a standing queue is kept as short as what was accepted in the last
/// `kInterval`. The SYN of who does not fit is dropped, which costs next to nothing, and the client's kernel sends it
/// again after a second (RFC 6298, 2.1). (The bound is also that of handshakes under way: beyond it the kernel answers by SYN cookies.) The thought is CoDel's (RFC 8289): the wait that never goes away is the bad one.
class AcceptQueue {
 public:
  static constexpr int kLong = 65535;  ///< the kernel caps it at net.core.somaxconn
  static constexpr int kShortest = 16;
  static constexpr std::uint64_t kInterval =
      200'000'000;  ///< ns; a client whose SYN is dropped waits for five times that

  /// A connection was accepted at `now_ns` (CLOCK_MONOTONIC). Returns the backlog that the listener is to have from now on, if that
  /// changes.
  std::optional<int> taken(std::uint64_t now_ns);
  /// There was none to accept. Likewise.
  std::optional<int> emptied();

 private:
  std::optional<int> set(int backlog);

  int backlog_ = kLong;
  std::uint64_t since_ = 0;  ///< begin of the present interval; it was not empty since then
  int taken_ = 0;            ///< in the present interval; 0: it is empty
};

}  // namespace tcpmig::dispatcher
