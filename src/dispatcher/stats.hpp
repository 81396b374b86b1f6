// SPDX-License-Identifier: MIT
#pragma once
#include <array>
#include <atomic>
#include <cstdint>
#include <deque>
#include <map>
#include <mutex>
#include <string>
#include <vector>

#include <nlohmann/json_fwd.hpp>

#include "shared/wire.h"
#include "sys/address.hpp"

namespace tcpmig::dispatcher {

/// CLOCK_MONOTONIC, ns: the same clock as bpf_ktime_get_ns().
std::uint64_t monotonic_ns();

/// What is counted, in the order of a connection's life. X(NAME, json_name)
// clang-format off
#define DISPATCHER_COUNTERS(X)                     \
  X(kAccepted, "accepted")                         \
  X(kQueueShortened, "accept_queue_shortened")      \
  X(kTurnedAway, "turned_away_waiting_full")       \
  X(kHeads, "heads")                               \
  X(kGoneWaiting, "client_gone_waiting")           \
  X(kFrozen, "frozen")                             \
  X(kFreezeRefused, "freeze_refused")              \
  X(kCommitsSent, "commits_sent")                  \
  X(kCommitsRepeated, "commits_repeated")          \
  X(kTransferred, "transferred")                   \
  X(kNextServer, "tried_next_server")              \
  X(kSilent, "silent_servers")                     \
  X(kRetriedOnSilence, "retried_on_silence")       \
  X(kTakenBack, "taken_back")                      \
  X(kLeft, "left")                                 \
  X(kCapturesSent, "captures_sent_on")             \
  X(kHandedBack, "handed_back")                    \
  X(kCapturesFull, "captures_dropped_full")        \
  X(kCapturesDamaged, "captures_dropped_damaged")   \
  X(kCapturesLost, "captures_without_transfer")    \
  X(kLateBytes, "late_bytes")                      \
  X(kLateAnswers, "late_answers")                  \
  X(kBadMessages, "bad_messages")                  \
  X(kRelayNotConnected, "relay_not_connected")     \
  X(kRelayedIn, "relayed_bytes_in")                \
  X(kRelayedOut, "relayed_bytes_out")              \
  X(kStaleLoads, "stale_loads")                    \
  X(kSendFailed, "send_failed")
// clang-format on

enum class Counter {
#define X(name, json) name,
  DISPATCHER_COUNTERS(X)
#undef X
      kCount
};

/// The moments of one transfer, CLOCK_MONOTONIC ns. Those of switch and server are comparable on one machine only. 0 = not known.
struct Stamps {
  std::uint64_t accepted = 0, head = 0, frozen = 0, sent = 0;
  std::uint64_t committed = 0, received = 0, opened = 0, confirmed = 0;
};

struct TransferRecord {
  sys::Endpoint client;
  std::uint16_t service = 0;
  std::string server;
  std::uint16_t port = 0;
  std::uint32_t generation = 0;
  Stamps stamps;
};

/// One more of something, for as long as it lives.
class Counted {
 public:
  explicit Counted(std::atomic<std::int64_t>& gauge) : gauge_(gauge) { gauge_.fetch_add(1); }
  ~Counted() { gauge_.fetch_sub(1); }
  Counted(const Counted&) = delete;
  Counted& operator=(const Counted&) = delete;

 private:
  std::atomic<std::int64_t>& gauge_;
};

/// Shared by all event loops of a dispatcher.
class Stats {
 public:
  void add(Counter counter, std::uint64_t n = 1) {
    counters_[static_cast<std::size_t>(counter)].fetch_add(n, std::memory_order_relaxed);
  }
  void answered(unsigned status);     ///< an answer of our own
  void refused(std::uint8_t reason);  ///< REFUSED came in
  void freeze_refused(const std::string& why);
  void relayed(const std::string& why);
  void transferred(TransferRecord record);
  std::atomic<std::int64_t> relaying{0};
  std::atomic<std::int64_t> waiting{0};      ///< connections that wait for their head
  std::atomic<std::int64_t> in_transfer{0};  ///< frozen, not yet closed or given back

  [[nodiscard]] nlohmann::json json() const;

 private:
  static constexpr std::size_t kKept = 4096;
  static constexpr std::size_t kRecent = 64;

  std::array<std::atomic<std::uint64_t>, static_cast<std::size_t>(Counter::kCount)> counters_{};
  mutable std::mutex mutex_;
  std::map<unsigned, std::uint64_t> answers_;
  std::map<std::uint8_t, std::uint64_t> refusals_;
  std::map<std::string, std::uint64_t> freeze_refusals_;
  std::map<std::string, std::uint64_t> relays_;
  std::deque<TransferRecord> records_;
};

}  // namespace tcpmig::dispatcher
