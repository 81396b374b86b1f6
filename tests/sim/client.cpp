// SPDX-License-Identifier: MIT
#include "sim/client.hpp"

#include <bit>

namespace tcpmig::sim {
namespace {

constexpr unsigned kTries = 10;  // more than the network may lose
constexpr Millis kTimer = 200;

}  // namespace

Client::Client(Network& network, const Letters& request)
    : network_(network), text_(request), next_(request.size()), acknowledged_(request.size()) {
  const unsigned further = network.chooser().pick(4);
  for (unsigned i = 0; i < further; ++i) text_.append(static_cast<char>('a' + i));
}

void Client::connect() {
  const Millis first = 2 * network_.chooser().pick(4), gap = network_.chooser().pick(3);
  if (next_ < text_.size()) {
    network_.after(first, [this, gap] { send_next(gap); });
    network_.after(first + kTimer, [this, at = acknowledged_] { watch(kTries, 2 * kTimer, at); });
  }
  silent_ = network_.chooser().rarely(3);
  if (silent_) return;
  // It asks at some time whether the other side is still there (RFC 9293, 3.8.4).
  for (const Millis when : {30'000, 60'000, 90'000, 120'000, 150'000, 180'000, 210'000, 240'000})
    network_.after(when, [this] { probe(); });
}

unsigned Client::answer() const { return static_cast<unsigned>(std::countr_one(parts_)); }

void Client::send(unsigned from, unsigned length) {
  network_.from_client({from, text_.part(from, length), answer()});
}

void Client::send_next(Millis gap) {
  if (end_ != End::kNone || next_ == text_.size()) return;
  send(next_++, 1);
  if (next_ < text_.size()) network_.after(gap, [this, gap] { send_next(gap); });
}

/// The retransmission timer: what is not acknowledged yet goes once more, in one segment.
void Client::watch(unsigned left, Millis delay, unsigned acknowledged) {
  if (end_ != End::kNone || acknowledged_ == text_.size()) return;
  if (acknowledged_ > acknowledged) {  // it goes on: the timer starts anew
    left = kTries;
    delay = kTimer;
  } else {
    sent_again_ = true;
    send(acknowledged_, next_ - acknowledged_);
  }
  if (left == 0) return;
  network_.after(delay,
                 [this, left, delay, at = acknowledged_] { watch(left - 1, 2 * delay, at); });
}

void Client::probe() {
  if (end_ != End::kNone) return;
  send(acknowledged_, next_ - acknowledged_);
}

void Client::receives(const Segment& segment) {
  if (end_ != End::kNone) return;
  if (segment.reset) {
    if (segment.seq == answer())  // any other is answered by a challenge ACK (RFC 5961, 3.2)
      end_ = End::kReset;
    else
      network_.from_client({next_, {}, answer()});
    return;
  }
  if (segment.acknowledged > next_) violation_ = "bytes are acknowledged that were never sent";
  if (segment.acknowledged > acknowledged_) acknowledged_ = segment.acknowledged;
  if (segment.parts != 0) {
    if (execution_ != 0 && execution_ != segment.execution)
      violation_ = "an answer is mixed of two executions";
    execution_ = segment.execution;
    speaker_ = segment.node;
    parts_ |= 1U << segment.part;
    network_.from_client({next_, {}, answer()});
  }
  closing_ = closing_ || segment.fin;
  look_for_end();
}

/// It has the whole answer, and all that it has sent has come.
void Client::look_for_end() {
  if (answer() == kParts && acknowledged_ == text_.size())
    end_ = End::kAnswered;
  else if (closing_ && execution_ == 0)
    end_ = End::kClosed;
}

}  // namespace tcpmig::sim
