// SPDX-License-Identifier: MIT
#pragma once
#include <string>

#include "sim/network.hpp"

namespace tcpmig::sim {

/// A client that has sent its request, perhaps sends further bytes, and reads the answer: a TCP that sends again what is not
/// acknowledged, with a doubling delay, and most ask now and then whether the other side is still there.
class Client {
 public:
  enum class End { kNone, kAnswered, kClosed, kReset };
  /// `request`: the bytes that it has sent already, and which are acknowledged.
  Client(Network& network, const Letters& request);
  void connect();
  void receives(const Segment& segment);

  [[nodiscard]] End end() const noexcept { return end_; }
  [[nodiscard]] const std::string& violation() const noexcept { return violation_; }
  /// Who has answered; kSwitch: nobody.
  [[nodiscard]] std::uint16_t speaker() const noexcept { return speaker_; }
  /// All that it sends, and how much of it somebody has acknowledged.
  [[nodiscard]] const Letters& sent() const noexcept { return text_; }
  [[nodiscard]] unsigned acknowledged() const noexcept { return acknowledged_; }
  /// It only listens, and would wait for ever if nobody told it.
  [[nodiscard]] bool is_silent() const noexcept { return silent_; }
  /// It had to send something a second time.
  [[nodiscard]] bool sent_again() const noexcept { return sent_again_; }

 private:
  void send(unsigned from, unsigned length);
  void send_next(Millis gap);
  void watch(unsigned left, Millis delay, unsigned acknowledged);
  void probe();
  [[nodiscard]] unsigned answer() const;
  void look_for_end();

  Network& network_;
  Letters text_;
  unsigned next_, acknowledged_;  ///< bytes that were sent, and acknowledged
  unsigned parts_ = 0;            ///< of the answer, a bit for each
  unsigned execution_ = 0;        ///< whose answer it is; 0: there is none yet
  std::uint16_t speaker_ = kSwitch;
  End end_ = End::kNone;
  bool silent_ = false, closing_ = false, sent_again_ = false;
  std::string violation_;
};

}  // namespace tcpmig::sim
