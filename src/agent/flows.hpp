// SPDX-License-Identifier: MIT
#pragma once
#include <deque>
#include <functional>

#include "agent/answers.hpp"
#include "agent/census.hpp"
#include "agent/endings.hpp"
#include "agent/tombstones.hpp"
#include "sys/sock_diag.hpp"

namespace tcpmig::agent {

/// A connection that was opened here and lives.
struct LiveFlow {
  control::Generation generation = 0;
  std::uint16_t target_port = 0;
  bool unsettled = false;  ///< left OPENING by a former run
  std::uint32_t awaited =
      0;  ///< bytes that a former run had to deliver to it; whether it did is not known
  TimePoint opened;
  TimePoint renewed;
};

/// The flows of this node: which live (by sock_diag), which have ended (GONE to the switch), which leases to renew, and how long
/// their tombstones are kept. Rebuilt from the tombstones at a start.
class Flows {
 public:
  /// Whether something is still being delivered to a flow.
  using Delivering = std::function<bool(const abi::flow_key&)>;
  /// Whether a flow is being given away, by this run or by a former one.
  using Leaving = std::function<bool(const abi::flow_key&)>;
  /// Whether a socket (SO_COOKIE) was offered to a program and taken back.
  using Withdrawn = std::function<bool(std::uint64_t)>;
  Flows(const config::Config& config, sys::SockDiag& diag, Tombstones& tombstones, Endings& endings,
        Answers& answers, Counters& counters, Delivering delivering, Leaving leaving,
        Withdrawn withdrawn, TimePoint now);

  void opened(const abi::flow_key& flow, const LiveFlow& live);
  /// A tombstone without a connection: to be forgotten in its time. `may_have_lived`: a child may have spoken, and ended before anybody
  /// looked; then the switch is told when no answer to it is awaited any more, or its entry would stay open for timeouts.idle.
  void settled(const abi::flow_key& flow, control::Generation generation, TimePoint now,
               bool may_have_lived = false);
  /// Its connection goes on at another node, which has told the switch.
  void left(const abi::flow_key& flow, control::Generation generation, TimePoint now);
  [[nodiscard]] const LiveFlow* find(const abi::flow_key& flow) const;
  /// What the tombstones tell of flows that are not known: at a start, and when an event was lost.
  void adopt(TimePoint now);
  /// A child that has received less than a former run had to deliver, while nobody delivers any more: the client knows these bytes
  /// acknowledged and will not send them again. It is ended, for all to see, rather than left to hang. False: it is whole.
  bool end_if_cut_short(const abi::flow_key& flow, const abi::tombstone& tombstone, TimePoint now);
  /// The switch has lost its table: it is told, by RENEW, of all that lives here.
  void announce(TimePoint now);
  /// The switch does not know this one, which has just spoken: says so again, if it lives.
  void announce(const abi::flow_key& flow);
  /// A SYN of the flow found no socket: tells the switch, if that is so.
  void stray_syn(const abi::flow_key& flow, TimePoint now);

  [[nodiscard]] std::size_t live() const noexcept { return live_.size(); }
  [[nodiscard]] std::size_t tombstones() const noexcept { return live_.size() + retired_.size(); }
  [[nodiscard]] TimePoint due() const;
  void run(TimePoint now);

 private:
  struct Ended {
    abi::flow_key flow{};
    control::Generation generation = 0;
    TimePoint when;
    bool lived = false;  ///< there was a connection: the switch has been told of its end
  };
  std::optional<std::chrono::milliseconds> look(const Census::Subject& subject, TimePoint now);
  [[nodiscard]] std::optional<sys::SocketInfo> living(const abi::flow_key& flow,
                                                      std::uint16_t port);
  void retire(FlowMap<LiveFlow>::iterator flow, TimePoint now);
  bool end_late_child(const Census::Subject& subject, TimePoint now);
  void seen(FlowMap<LiveFlow>::iterator flow, TimePoint now);
  bool settle_adopted(FlowMap<LiveFlow>::iterator flow, TimePoint now);
  void announce_all(TimePoint now);
  void tell_gone();
  void sweep(TimePoint now);
  [[nodiscard]] std::chrono::milliseconds retention() const;
  [[nodiscard]] std::chrono::milliseconds least_retention() const;

  const config::Config& config_;
  sys::SockDiag& diag_;
  Tombstones& tombstones_;
  Endings& endings_;
  Answers& answers_;
  Counters& counters_;
  Delivering delivering_;
  Leaving leaving_;
  Withdrawn withdrawn_;
  FlowMap<LiveFlow> live_;
  std::deque<Ended> ended_;    ///< not yet told to the switch
  std::deque<Ended> retired_;  ///< tombstones without a connection, oldest first
  Census census_;
  TimePoint next_gone_;
  TimePoint next_announcement_;
  TimePoint announcing_until_;
  std::chrono::milliseconds announce_pause_{0};
};

}  // namespace tcpmig::agent
