// SPDX-License-Identifier: MIT
#pragma once
#include "sim/mover.hpp"

namespace tcpmig::sim {

/// The dispatcher that the client is bound to. Killed, it is started anew, or its machine is gone for ever.
class Dispatcher : public Mover {
 public:
  /// `request`: what it has read of the client.
  Dispatcher(Network& network, const Letters& request)
      : Mover(network, kDispatcher), socket_(Stream(request)) {}
  void start();
  /// It has nothing to do with this connection.
  void stand_by() { state_ = Socket::kNone; }
  void receives(const ClientSegment& segment);
  void kill();

  [[nodiscard]] const Stream& socket() const noexcept { return socket_; }
  [[nodiscard]] bool released() const noexcept { return state_ == Socket::kNone; }
  /// It has told the client that its request was not executed (503).
  [[nodiscard]] bool said_not_executed() {
    return is_over() && machine().state() == control::TransferState::kReturned &&
           machine().failure() != control::TransferMachine::Failure::kNoAnswer;
  }
  // What its heartbeats say of the process.
  [[nodiscard]] bool process_lives() const noexcept { return process_; }
  [[nodiscard]] Millis last_heard() const noexcept { return process_ ? network_.now() : died_; }
  /// A second one, and since when.
  [[nodiscard]] std::optional<Millis> replaced() const noexcept { return replaced_; }

 private:
  enum class Socket { kOpen, kFrozen, kNone };
  void offer(const control::Attempt& attempt) override;
  void repeat() override;
  std::optional<control::Candidate> next(const std::set<std::size_t>& tried) override;
  void over() override;
  [[nodiscard]] bool is_dead() const override { return died_with_it_; }

  void returned();
  void moved();
  void end_unknown();
  void answer(unsigned left, Millis delay);
  void close(unsigned left, Millis delay);

  Stream socket_;
  Socket state_ = Socket::kOpen;
  unsigned parts_ = 1;      ///< of its transfer
  unsigned execution_ = 0;  ///< of its own answer
  unsigned delivered_ = 0;  ///< of it
  bool process_ = true, host_ = true;
  bool died_with_it_ = false;  ///< the process that had the connection
  Millis died_ = 0;
  std::optional<Millis> replaced_;
};

}  // namespace tcpmig::sim
