// SPDX-License-Identifier: MIT
#pragma once
#include <deque>
#include <memory>
#include <optional>
#include <vector>

#include "agent/assembly.hpp"
#include "sim/departure.hpp"
#include "sim/network.hpp"

namespace tcpmig::sim {

/// A server: its kernel and its programs, which nothing kills, and its agent, which may be (agent.cpp).
class Server {
 public:
  Server(Network& network, std::uint16_t node);
  /// It owns a connection, as if that had been moved to it earlier, and is about to give it away.
  void begin_with(const Letters& request);
  void hears(const Message& message);
  void receives(const ClientSegment& segment);
  void hears_boot(std::uint32_t boot);
  void kill_agent();

  /// What its programs have read of the client, one connection after the other; the last may be open.
  [[nodiscard]] const std::vector<Letters>& read() const noexcept { return read_; }
  [[nodiscard]] const Stream* stream() const { return child_ ? &child_->stream : nullptr; }
  [[nodiscard]] bool listens() const noexcept { return listens_; }
  [[nodiscard]] unsigned executions() const noexcept { return executions_; }
  /// That one of its connections has, or had last.
  [[nodiscard]] std::uint32_t generation_of(unsigned life) const {
    return generations_.at(life - 1);
  }
  /// It is being given away: the flow may have come back already, which its agent has not heard.
  [[nodiscard]] bool is_frozen(unsigned life) const {
    return child_ && child_->life == life && child_->frozen;
  }
  /// The lease of the connection that it owns can be renewed: else the flow ends while it lives.
  [[nodiscard]] bool can_renew() const;
  [[nodiscard]] bool has_zombie() const;
  [[nodiscard]] const Departure* departure() const { return departure_.get(); }
  /// A connection stands still, and nobody is about to change that.
  [[nodiscard]] bool holds_frozen() const { return child_ && child_->frozen; }

 private:
  friend class Departure;
  enum class State { kNone, kAnnounced, kOpening, kConfirmed, kRefused, kAborted };
  enum class Kind : std::uint8_t { kOpened, kRefused, kDuplicate };
  /// A connection that was resumed here.
  struct Child {
    unsigned life = 0;
    unsigned execution = 0;
    unsigned delivered = 0;  ///< parts of the answer that the client has acknowledged
    Millis since = 0;
    unsigned allowed = kParts;  ///< of the answer, that its program has written
    Stream stream;
    bool frozen = false;    ///< it is being given away
    bool in_agent = false;  ///< not yet its program's
  };
  /// What the programs tell the agent: pinned, it outlives it.
  struct Event {
    Message message;
    Kind kind;
  };

  // ---- server.cpp: the kernel, its programs, the application
  void program_opens(const Message& message);
  void open(const Message& message, const Letters& received);
  unsigned new_life(std::uint32_t generation) {
    generations_.push_back(generation);
    return static_cast<unsigned>(generations_.size());
  }
  void application_takes(unsigned life, bool goes_on);
  void speak(unsigned life, unsigned left, Millis delay);
  void kernel_takes(const ClientSegment& segment);
  void acknowledge();
  void child_ends();
  void lose_child();
  void reset(const ClientSegment& segment);
  [[nodiscard]] bool may_follow(std::uint32_t generation, State state) const;
  void claim(std::uint32_t generation, State state);

  // ---- agent.cpp
  template <typename What>
  void soon(Millis delay, What what) {
    network_.after(delay, [this, run = run_, what] {
      if (up_ && run == run_) what();
    });
  }
  void event(const Event& event);
  void take_event(const Event& event);
  void on_part(const Message& message);
  void assemble(const Message& message);
  void assembly_tick();
  void open_whole(const Message& message, const Letters& received);
  void on_abort(const Message& message);
  void on_segment(const Message& message);
  void on_revoked(std::uint32_t current);
  void look_for_child(const Message& question);
  void confirm(const Message& question);
  void refuse(const Message& question, std::uint8_t reason);
  void refuse_unopened(const Message& question, std::uint8_t reason);
  void answer_again(const Message& question);
  void tell(const Message& question, std::uint8_t type, std::uint8_t reason = 0);
  void hand_back(const Message& question);
  bool give_back(const ClientSegment& segment);
  void on_stray(const ClientSegment& segment);
  void hold(const ClientSegment& segment);
  void expire_hold();
  void restart_agent();
  void census();
  void renew();
  [[nodiscard]] bool is_leaving() const;
  [[nodiscard]] bool is_overdue(const ClientSegment& segment);
  [[nodiscard]] static agent::TimePoint at(Millis when) {
    return agent::TimePoint(std::chrono::milliseconds(when));
  }

  Network& network_;
  const std::uint16_t node_;
  bool listens_ = true;
  Millis pace_ = 0;  ///< between the parts of its answer
  // pinned, or on disk
  std::uint32_t known_ = 0;
  State state_ = State::kNone;
  std::uint8_t reason_ = 0;
  std::deque<Event> ring_;
  std::optional<Departure::Record> record_;
  // the kernel's and the application's
  std::optional<Child> child_;
  unsigned executions_ = 0;
  std::vector<std::uint32_t> generations_;  ///< of its connections, by life - 1
  std::vector<Letters> read_;
  // the agent's
  bool up_ = true;
  unsigned run_ = 0;
  std::uint32_t boot_ = 1;
  std::unique_ptr<agent::Assembly> assembly_;
  std::vector<ClientSegment> held_;
  unsigned batches_ = 0;
  struct Former {
    Message question;
    Millis until = 0;
  };
  std::optional<Former> former_;  ///< a transfer that was refused here
  struct Left {
    std::uint16_t owner = 0;
    std::uint32_t generation = 0;
    Millis until = 0;
  };
  std::optional<Left> left_;  ///< a connection that has gone on to another server
  std::optional<std::pair<unsigned, Millis>>
      stray_;  ///< what has no connection: its number, since when
  Millis announcing_until_ = 0;
  std::unique_ptr<Departure> departure_;
  std::vector<std::unique_ptr<Departure>>
      departed_;  ///< of former runs: their timers may still come
};

}  // namespace tcpmig::sim
