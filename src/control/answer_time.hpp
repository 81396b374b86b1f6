// SPDX-License-Identifier: MIT
#pragma once
#include <chrono>

namespace tcpmig::control {

/// How long a node takes to answer, smoothed as TCP smooths a round trip (RFC 6298, 2.2 and 2.3). A message is repeated when its answer
/// is late for this node, not for an idle one: under overload, repeats that are not needed would be most of what there is to do.
class AnswerTime {
 public:
  using Duration = std::chrono::microseconds;

  /// From the first sending to the answer. Also where the message was repeated: loss then adds its share, which only makes the next
  /// repeat a little later; leaving these out (Karn) would never see a node that has become slower than the patience.
  void took(Duration time);
  /// When to repeat: the smoothed time and four times its deviation, but within these bounds.
  [[nodiscard]] Duration patience(Duration least, Duration most) const;

 private:
  Duration smoothed_{0};
  Duration deviation_{0};
  bool known_ = false;
};

}  // namespace tcpmig::control
