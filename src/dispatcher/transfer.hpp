// SPDX-License-Identifier: MIT
#pragma once
#include <cstddef>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <span>
#include <vector>

#include <boost/asio/awaitable.hpp>
#include <boost/asio/steady_timer.hpp>

#include <tcpmig/freeze.hpp>

#include "control/captures.hpp"
#include "control/transfer_machine.hpp"
#include "dispatcher/worker.hpp"
#include "sys/unique_fd.hpp"

namespace tcpmig::dispatcher {

/// How a transfer ended for the client: moved, or here again, thawed, with what it has sent.
struct Outcome {
  bool moved = false;
  control::TransferMachine::Failure why = control::TransferMachine::Failure::kNone;
  sys::UniqueFd fd;
  std::vector<std::byte> received;  ///< read from the socket already
};

/// Moves one frozen connection to a server of a pool: carries out, with real messages and a real clock, what
/// control::TransferMachine decides.
///
/// Moved: captures and late bytes follow; after a grace period the frozen socket closes silently.
class Transfer : public std::enable_shared_from_this<Transfer>, private control::TransferDriver {
 public:
  /// `first`: index of the server in the pool, chosen before the freeze.
  Transfer(Worker& worker, const config::Service& service, const config::Pool& pool, Frozen frozen,
           bool idempotent, Stamps stamps, std::size_t first);

  /// Once. Sends before it suspends.
  boost::asio::awaitable<Outcome> run();

  void take_answer(const control::Incoming& message);
  void take_capture(CapturedSegment segment);
  /// A packet of the client that came to a server which does not take the connection.
  void take_handed_back(const control::Incoming& message);
  [[nodiscard]] const sys::Endpoint& client() const noexcept { return frozen_.snapshot().peer; }
  [[nodiscard]] std::uint16_t service_id() const noexcept { return service_.id; }
  [[nodiscard]] std::uint64_t cookie() const noexcept { return frozen_.cookie(); }

 private:
  // what the machine wants
  void offer(const control::Attempt& attempt) override;
  void take_back(control::Generation generation) override;
  void repeat() override;
  void resend(std::uint16_t part) override;
  void abort(const control::Attempt& attempt) override;
  std::optional<control::Candidate> next(const std::set<std::size_t>& tried) override;
  [[nodiscard]] bool boot_changed() const override;
  void follow_boot() override;
  void note(Note note) override;

  [[nodiscard]] const config::PoolServer& server(const control::Attempt& attempt) const {
    return pool_.servers[attempt.server.index];
  }
  void append_captures(const config::PoolServer& target);
  [[nodiscard]] control::Transfer about(std::uint16_t target, std::uint16_t port,
                                        control::Generation generation) const;
  void stamp(control::Outgoing& message) const;
  void send_part(control::Outgoing& message);
  void send_segment(std::span<const std::byte> segment, bool crafted);
  void moved();
  boost::asio::awaitable<void> end_unknown();
  Outcome returned();
  void send_captures();
  [[nodiscard]] std::vector<std::vector<std::byte>> late_segments();
  /// After the grace period: what slipped past the lock follows, then the frozen socket ends.
  boost::asio::awaitable<void> finish();

  Worker& worker_;
  Counted counted_;
  const config::Service& service_;
  const config::Pool& pool_;
  Frozen frozen_;
  Snapshot offered_;  ///< the frozen one, and what the lock has captured up to the last offer
  struct Offer {
    std::uint16_t node = 0;
    Seq end;  ///< rcv_nxt
  };
  std::map<control::Generation, Offer> offers_;
  Stamps stamps_;
  control::Candidate first_;
  control::TransferMachine machine_;
  control::Captures captures_;
  bool left_ = false;                        ///< nobody knows who has it
  std::uint32_t boot_;                       ///< of the switch, when the transfer began
  std::vector<control::Outgoing> messages_;  ///< of the last offer or take-back; the COMMIT last
  boost::asio::steady_timer timer_;
};

}  // namespace tcpmig::dispatcher
