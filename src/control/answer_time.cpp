// SPDX-License-Identifier: MIT
#include "control/answer_time.hpp"

#include <algorithm>

namespace tcpmig::control {

void AnswerTime::took(Duration time) {
  if (!known_) {
    known_ = true;
    smoothed_ = time;
    deviation_ = time / 2;
    return;
  }
  deviation_ += (std::chrono::abs(time - smoothed_) - deviation_) / 4;
  smoothed_ += (time - smoothed_) / 8;
}

AnswerTime::Duration AnswerTime::patience(Duration least, Duration most) const {
  return std::clamp(smoothed_ + 4 * deviation_, least, most);
}

}  // namespace tcpmig::control
