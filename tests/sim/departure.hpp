// SPDX-License-Identifier: MIT
#pragma once
#include "sim/mover.hpp"

namespace tcpmig::sim {

class Server;

/// A connection that a program of a server gives to another server: frozen whole, moved by the agent. A killed agent leaves a record,
/// and the next one goes on from it (TransferMachine::go_on()).
class Departure : public Mover {
 public:
  /// On disk, written before anything happens that it tells of.
  struct Record {
    bool moved = false;
    std::uint32_t generation = 0;  ///< of the flow before
    std::uint32_t offered = 0, newest = 0;
    std::uint32_t boot = 0;
    std::uint16_t target = 0;
  };
  Departure(Network& network, Server& server, std::uint16_t node)
      : Mover(network, node), server_(server) {}
  void start(std::uint16_t target);
  /// What a former run has begun.
  void go_on(const Record& record);
  void kill() { dead_ = true; }
  void hears_boot(std::uint32_t boot) override;
  /// It takes what the lock keeps back; a former run's lock has nobody who does.
  [[nodiscard]] bool takes_captures() const noexcept { return has_frozen_ && !dead_; }
  [[nodiscard]] bool is_done() const noexcept { return done_; }
  /// The program has the connection again, and was told that the other server never had it.
  [[nodiscard]] bool came_back() const noexcept { return returned_; }

 private:
  void offer(const control::Attempt& attempt) override;
  void take_back(control::Generation generation) override;
  void repeat() override { network_.to_switch(messages_.back()); }
  std::optional<control::Candidate> next(const std::set<std::size_t>&) override {
    return std::nullopt;  // the program has named one server
  }
  void note(Note note) override;
  void follow_boot() override;
  void over() override;
  [[nodiscard]] bool is_dead() const override { return dead_ || done_; }

  void returned();
  void moved();
  void end_unknown();
  void finish();

  Server& server_;
  Record record_;
  std::uint32_t begun_in_ = 0;  ///< boot of the switch
  bool has_frozen_ = false, dead_ = false, done_ = false, taken_back_ = false, returned_ = false;
};

}  // namespace tcpmig::sim
