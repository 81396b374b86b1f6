// SPDX-License-Identifier: MIT
#pragma once
#include <memory>
#include <optional>
#include <vector>

#include "control/transfer_machine.hpp"
#include "sim/network.hpp"

namespace tcpmig::sim {

/// Who moves a frozen connection: carries out what the real machine decides, as src/dispatcher/transfer.cpp and
/// src/agent/departure.cpp do, which differ in what they send and in what becomes of the connection.
class Mover : protected control::TransferDriver {
 public:
  /// An answer to its transfer, or a packet that a server hands back.
  void hears(const Message& message);
  virtual void hears_boot(std::uint32_t boot) { heard_boot_ = boot; }
  /// The lock has kept this.
  void capture(unsigned seq, const Letters& data);
  /// A packet that was past the lock when it came is still taken in by the frozen `socket`.
  [[nodiscard]] bool leaks(const Stream& socket, unsigned seq);
  [[nodiscard]] bool has_moved() const {
    return over_ && !left_ && machine_->state() == control::TransferState::kMoved;
  }
  /// It has given up because nobody can know any more who has the connection.
  [[nodiscard]] bool has_left() const noexcept { return left_; }
  /// It has the connection again, it believes: each of its take-backs was lost, or each answer.
  [[nodiscard]] bool returned_unheard() const {
    return over_ && machine_->state() == control::TransferState::kReturned && !heard_;
  }
  [[nodiscard]] control::TransferMachine::Failure failure() const { return machine_->failure(); }

 protected:
  Mover(Network& network, std::uint16_t node) : network_(network), node_(node) {}

  /// `socket`: what the frozen connection has taken from the client.
  void freeze(const Stream& socket, std::uint32_t boot);
  void make_machine(const control::TransferMachine::Rules& rules, std::uint32_t first);
  [[nodiscard]] control::TransferMachine& machine() { return *machine_; }
  /// After each step of the machine.
  void arm();
  /// The machine is over; once.
  virtual void over() = 0;
  /// It has been killed, and does nothing any more.
  [[nodiscard]] virtual bool is_dead() const = 0;
  [[nodiscard]] bool is_over() const noexcept { return over_; }
  /// To the new owner: all that was captured.
  void send_captures();
  /// And, again and again, what the frozen `socket` has acknowledged since the freeze; then `then`.
  void send_late(const Stream& socket, Task then);
  void splice_captures();
  [[nodiscard]] std::vector<Message> parts_of(const Message& commit, unsigned parts) const;
  [[nodiscard]] Message about(std::uint16_t target, std::uint32_t generation) const;
  void note_offer(std::uint32_t generation, std::uint16_t node);
  static control::TransferMachine::TimePoint at(Millis when) {
    return control::TransferMachine::TimePoint(std::chrono::milliseconds(when));
  }

  // what the machine wants
  void resend(std::uint16_t part) override;
  void abort(const control::Attempt& attempt) override;
  void take_back(control::Generation generation) override;
  [[nodiscard]] bool boot_changed() const override { return boot_ != heard_boot_; }
  void follow_boot() override { boot_ = heard_boot_; }
  void note(Note note) override { left_ = left_ || note == Note::kLeft; }

  Network& network_;
  const std::uint16_t node_;
  std::vector<Message> messages_;  ///< of the last offer or take-back; the COMMIT last
  Letters frozen_;                 ///< the snapshot
  Letters offered_;                ///< that, and what was captured up to the last offer
  struct Captured {
    unsigned seq;
    Letters data;
  };
  std::vector<Captured> captured_;
  std::uint32_t boot_ = 1, heard_boot_ = 1;

 private:
  struct Offer {
    std::uint32_t generation;
    std::uint16_t node;
    unsigned end;  ///< rcv_nxt
  };
  void send_segment(unsigned seq, const Letters& data, bool crafted);

  std::unique_ptr<control::TransferMachine> machine_;
  std::vector<Offer> offers_;
  Millis frozen_at_ = 0;
  bool heard_ = false;  ///< the switch has answered the last take-back
  bool kept_back_ = false, over_ = false, left_ = false;
};

}  // namespace tcpmig::sim
