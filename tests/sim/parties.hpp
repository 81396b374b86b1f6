// SPDX-License-Identifier: MIT
#pragma once
#include <array>
#include <deque>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "sim/network.hpp"

namespace tcpmig::sim {

/// Sends what it has until it is acknowledged, with a doubling delay, as every TCP does.
class Retransmission {
 public:
  explicit Retransmission(Network& network) : network_(network) {}
  /// Calls `send` now and again until it says false, at most `times`; then `given_up`.
  void start(unsigned times, std::function<bool()> send, std::function<void()> given_up = {});

 private:
  void step(unsigned left, Millis delay, const std::function<bool()>& send,
            const std::function<void()>& given_up);
  Network& network_;
};

/// A client that has sent its request, perhaps sends further data, and reads the answer.
class Client {
 public:
  enum class End { kNone, kAnswered, kClosed, kReset };
  explicit Client(Network& network) : network_(network), retransmission_(network) {}
  void connect();
  void receives(const Segment& segment);

  [[nodiscard]] End end() const noexcept { return end_; }
  [[nodiscard]] const std::string& violation() const noexcept { return violation_; }
  /// Who has answered; kSwitch: nobody.
  [[nodiscard]] std::uint16_t speaker() const { return speaker_ ? speaker_->first : kSwitch; }
  /// Pieces of further data that somebody has acknowledged.
  [[nodiscard]] unsigned acknowledged() const noexcept { return acknowledged_; }

 private:
  Network& network_;
  Retransmission retransmission_;
  End end_ = End::kNone;
  std::string violation_;
  std::optional<std::pair<std::uint16_t, std::uint32_t>> speaker_;  ///< node, life
  std::set<unsigned> parts_;
  unsigned pieces_ = 0;  ///< of further data, sent one after the other
  unsigned acknowledged_ = 0;
};

/// The dispatcher: the real machine, and a frozen socket.
class Dispatcher : private control::TransferDriver {
 public:
  explicit Dispatcher(Network& network) : network_(network), retransmission_(network) {}
  void start();
  void hears(const Message& message);
  void receives(unsigned piece);
  void hears_boot(std::uint32_t boot) { heard_boot_ = boot; }
  [[nodiscard]] bool was_killed() const noexcept { return killed_; }
  /// It has given up because nobody can know any more.
  [[nodiscard]] bool has_left() const noexcept { return left_; }
  [[nodiscard]] unsigned accepted() const noexcept { return accepted_; }
  /// It has told the client that its request was not executed (503).
  [[nodiscard]] bool said_not_executed() const {
    return over_ && machine_->state() == control::TransferState::kReturned &&
           machine_->failure() != control::TransferMachine::Failure::kNoAnswer;
  }
  [[nodiscard]] bool released() const noexcept { return socket_ == Socket::kNone || killed_; }

 private:
  enum class Socket { kOpen, kFrozen, kNone };
  void offer(const control::Attempt& attempt) override;
  void take_back(control::Generation generation) override;
  void repeat() override { network_.to_switch(last_); }
  void resend(std::uint16_t) override {}
  void abort(const control::Attempt& attempt) override;
  std::optional<control::Candidate> next(const std::set<std::size_t>& tried) override;
  [[nodiscard]] bool boot_changed() const override { return boot_ != heard_boot_; }
  void follow_boot() override { boot_ = heard_boot_; }
  void note(Note note) override { left_ = left_ || note == Note::kLeft; }

  void kill();
  void arm();
  void over();
  void send_piece(unsigned piece);
  void answer(bool with_data);
  static control::TransferMachine::TimePoint at(Millis when) {
    return control::TransferMachine::TimePoint(std::chrono::milliseconds(when));
  }

  Network& network_;
  Retransmission retransmission_;
  std::unique_ptr<control::TransferMachine> machine_;
  Message last_;
  std::uint32_t boot_ = 1, heard_boot_ = 1;
  Socket socket_ = Socket::kOpen;
  bool killed_ = false, over_ = false, closed_early_ = false, left_ = false;
  unsigned accepted_ =
      0;  ///< pieces of further data that slipped past the lock and were acknowledged
  std::set<unsigned> captured_;
  bool answered_ = false;
};

/// A server: its kernel and its programs, which nothing kills, and its agent, which may be.
class Server {
 public:
  Server(Network& network, std::uint16_t node)
      : network_(network), retransmission_(network), node_(node) {
    listens_ = network.chooser().pick(8) != 7;
    pace_ = network.chooser().pick(3) == 2 ? 1'500 : 0;
  }
  void commit(const Message& message);
  void hears(const Message& message);
  void receives(unsigned piece, unsigned parts = 0);
  void revoked(std::uint32_t current);
  /// The switch has lost its table.
  void announce();

  /// Pieces of further data that its last connection has taken.
  [[nodiscard]] unsigned accepted() const noexcept { return accepted_; }
  [[nodiscard]] unsigned executions() const noexcept { return executions_; }
  [[nodiscard]] bool was_killed() const noexcept { return killed_; }
  [[nodiscard]] bool has_zombie() const;

 private:
  enum class State { kNone, kOpening, kConfirmed, kRefused, kAborted };
  struct Child {
    std::uint32_t life = 0;
    std::uint32_t generation = 0;
    Millis since = 0;
    unsigned delivered = 0;  ///< parts of the answer that the client has acknowledged
  };
  void event(const Message& message);
  void agent_takes(const Message& message);
  void answer_by_tombstone(const Message& message);
  void tell(const Message& question, std::uint8_t type, std::uint8_t reason = 0);
  void open(const Message& message);
  void speak();
  void kill_agent();
  void restart_agent();
  void renew();
  void expire(unsigned batch);
  void orphan();

  Network& network_;
  Retransmission retransmission_;
  std::uint16_t node_;
  bool listens_ = true;
  Millis pace_ = 0;  ///< between the parts of its answer
  // pinned
  std::uint32_t known_ = 0;
  State state_ = State::kNone;
  std::deque<Message> ring_;
  // the kernel's
  std::optional<Child> child_;
  std::uint32_t lives_ = 0;
  unsigned accepted_ = 0;
  unsigned executions_ = 0;
  // the agent's
  bool agent_ = true, killed_ = false;
  std::vector<unsigned> held_;
  unsigned batches_ = 0;
  std::optional<Millis> stray_since_;
  Millis announcing_until_ = 0;
};

}  // namespace tcpmig::sim
