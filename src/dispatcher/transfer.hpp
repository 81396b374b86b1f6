// SPDX-License-Identifier: MIT
#pragma once
#include <chrono>
#include <deque>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include <boost/asio/awaitable.hpp>
#include <boost/asio/steady_timer.hpp>

#include <tcpmig/freeze.hpp>

#include "dispatcher/worker.hpp"

namespace tcpmig::dispatcher {

/// How a transfer ended for the client: moved, or an answer of ours on the thawed connection.
struct Outcome {
  bool moved = false;
  unsigned status = 0;
  std::string why;
  sys::UniqueFd fd;
};

/// Moves one frozen connection to a server of a pool.
///
///              +-- STALE: newer generation (3 times at most) --+
///              v                                               |
///   choose -> COMMIT g ----- RESUMED, ALREADY_SPOKE ------------------> moved
///     ^          |  |  \                                        |
///     |          |  |   REFUSED by the server ------------------+--+
///     |          |  silence until timeouts.transfer                |
///     |          |    idempotent: ABORT once, then as refused -----+
///     |          |    else: ABORT until ABORTED -------------------+
///     |          |          until RESUMED -> moved                 |
///     |          |          until the deadline -> take back -> 504 |
///     |          TABLE_FULL, NOT_ENTITLED -> take back -> 503      |
///     +---------------- g + 1, the next server --------------------+-- none left -> take back -> 503
///
/// Moved: captures and late bytes follow; after a grace period the frozen socket closes silently.
/// The point of no return is the switch's: once the new owner has spoken, every further COMMIT is
/// answered ALREADY_SPOKE, and that means moved. So no wrong guess here can execute a request twice.
class Transfer : public std::enable_shared_from_this<Transfer> {
 public:
  Transfer(Worker& worker, const config::Service& service, const config::Pool& pool, Frozen frozen,
           bool idempotent, Stamps stamps);

  /// `first`: index of the server chosen before the freeze. Sends before it suspends.
  boost::asio::awaitable<Outcome> run(std::size_t first);

  void take_answer(const control::Incoming& message);
  void take_capture(CapturedSegment segment);
  [[nodiscard]] const sys::Endpoint& client() const noexcept { return frozen_.snapshot().peer; }
  [[nodiscard]] std::uint16_t service_id() const noexcept { return service_.id; }
  [[nodiscard]] std::uint64_t cookie() const noexcept { return frozen_.cookie(); }

 private:
  using Clock = std::chrono::steady_clock;
  enum class Verdict { kMoved, kNext, kSilent, kGiveUp };
  struct Attempt {
    control::Generation generation = 0;
    const config::PoolServer* server = nullptr;
  };
  struct Answer {
    abi::wire_header header;
    std::vector<std::byte> payload;
  };

  boost::asio::awaitable<Verdict> attempt(std::size_t index);
  boost::asio::awaitable<Verdict> insist_on_abort();
  void take_back_at(control::Generation generation);
  boost::asio::awaitable<bool> take_back();  ///< false: the owner has spoken: moved after all
  boost::asio::awaitable<Outcome> give_up(unsigned status, std::string why);
  boost::asio::awaitable<std::optional<Answer>> next_answer(Clock::time_point deadline);
  std::optional<Verdict> judge(const Answer& answer);
  std::optional<Verdict> judge_refusal(const Answer& answer);

  void commit_to(std::uint16_t target, std::uint16_t port);
  void send_all();
  void send_missing(const Answer& answer);
  void send_to_target(std::uint8_t type);
  void send_segment(std::span<const std::byte> segment, bool crafted);
  [[nodiscard]] Attempt owner_by(const abi::wire_header& answer) const;
  void moved(const Answer& answer);
  void send_what_came_late();
  void finish();  ///< after the grace period

  Worker& worker_;
  const config::Service& service_;
  const config::Pool& pool_;
  Frozen frozen_;
  bool idempotent_;
  Stamps stamps_;

  control::Generation generation_ = 0;
  std::set<std::size_t> tried_;
  const config::PoolServer* server_ = nullptr;  ///< of the present attempt
  std::vector<Attempt>
      attempts_;  ///< every COMMIT that named a server: "already spoke" may speak of any of them
  unsigned stale_ = 0;
  bool sent_ = false;  ///< some COMMIT has been sent: the switch may have moved the flow
  bool has_moved_ = false;
  const config::PoolServer* owner_ = nullptr;  ///< once it has moved
  control::Generation owner_generation_ = 0;
  std::vector<control::Outgoing> messages_;
  std::deque<Answer> answers_;
  std::vector<CapturedSegment> captures_;
  boost::asio::steady_timer timer_;
};

}  // namespace tcpmig::dispatcher
