// SPDX-License-Identifier: MIT
#pragma once
#include <deque>

#include "agent/answers.hpp"
#include "agent/tombstones.hpp"
#include "sys/sock_diag.hpp"

namespace tcpmig::agent {

/// A connection that was opened here and lives.
struct LiveFlow {
  control::Generation generation = 0;
  std::uint32_t snd_nxt = 0;  ///< of the COMMIT
  std::uint16_t target_port = 0;
  std::uint64_t census = 0;  ///< the last one that saw its socket
  bool unsettled = false;    ///< left OPENING by a former run
  TimePoint opened;
  TimePoint renewed;
};

/// The flows of this node: which live (by sock_diag), which have ended (GONE to the switch), which leases to renew, and how long
/// their tombstones are kept. Rebuilt from the tombstones at a start.
class Flows {
 public:
  Flows(const config::Config& config, const config::Node& self, sys::SockDiag& diag,
        Tombstones& tombstones, Answers& answers, Counters& counters, TimePoint now);

  void opened(const abi::flow_key& flow, const LiveFlow& live);
  /// A tombstone without a connection: to be forgotten in its time.
  void settled(const abi::flow_key& flow, control::Generation generation, TimePoint now);
  [[nodiscard]] const LiveFlow* find(const abi::flow_key& flow) const;
  /// What the tombstones tell of flows that are not known: at a start, and when an event was lost.
  void adopt(TimePoint now);
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
  };
  void take_census(TimePoint now);
  void retire(FlowMap<LiveFlow>::iterator flow, TimePoint now);
  void seen(const abi::flow_key& flow, LiveFlow& live, TimePoint now);
  void tell_gone();
  void sweep(TimePoint now);
  [[nodiscard]] std::chrono::milliseconds retention() const;

  const config::Config& config_;
  sys::Prefix block4_;
  sys::Prefix block6_;
  sys::SockDiag& diag_;
  Tombstones& tombstones_;
  Answers& answers_;
  Counters& counters_;
  FlowMap<LiveFlow> live_;
  std::deque<Ended> ended_;    ///< not yet told to the switch
  std::deque<Ended> retired_;  ///< tombstones without a connection, oldest first
  std::uint64_t census_ = 0;
  TimePoint next_census_;
  TimePoint next_gone_;
};

}  // namespace tcpmig::agent
