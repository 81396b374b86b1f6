// SPDX-License-Identifier: MIT
#pragma once
#include <nlohmann/json_fwd.hpp>
#include <optional>

#include "agent/answers.hpp"
#include "agent/assembly.hpp"
#include "agent/confirmations.hpp"
#include "agent/departures.hpp"
#include "agent/endings.hpp"
#include "agent/flows.hpp"
#include "agent/hand_backs.hpp"
#include "agent/handoffs.hpp"
#include "agent/held_packets.hpp"
#include "agent/openings.hpp"
#include "agent/orphans.hpp"
#include "agent/programs.hpp"
#include "agent/replay_window.hpp"
#include "control/node_network.hpp"
#include "sys/ledger.hpp"
#include "sys/tun.hpp"

namespace tcpmig::agent {

/// The agent of one server node: what comes in (events of the programs, control messages, stray packets), and what follows from it.
/// One thread; nothing here waits.
///
///   COMMIT of one part ------> resume_wire --> event OPENED ----------> look for the child
///   several parts, or a
///   busy four-tuple ---------> assembly --> TUN, resume_tun ----------> look for the child
///   for a program (by_program)
///     ----------------------> assembly --> Handoffs: the program is made to ask, TCP_REPAIR, SCM_RIGHTS
///
/// then RESUMED to the sender, and what was held meanwhile follows. The other way round, a program gives a connection away:
///
///   MIGRATE -> Departures -> Departure: freeze(), COMMIT to the switch, answers
class Service {
 public:
  Service(const config::Config& config, const config::Node& self);

  // What to wait for, and what to call then.
  [[nodiscard]] int events_fd() const noexcept { return programs_.events_fd(); }
  [[nodiscard]] int tun_fd() const noexcept { return tun_.fd(); }
  [[nodiscard]] std::vector<int> control_fds() const { return port_.descriptors(); }
  void on_events();
  void on_tun();
  [[nodiscard]] int handovers_fd() const noexcept { return handoffs_.events_fd(); }
  void on_handovers() { handoffs_.on_events(); }
  [[nodiscard]] int departures_fd() const noexcept { return departures_.events_fd(); }
  void on_departures() { departures_.on_events(); }
  void on_control(int fd);
  /// When run() wants to be called next; TimePoint::max() never happens.
  [[nodiscard]] TimePoint due() const;
  void run(TimePoint now);

  [[nodiscard]] nlohmann::json status() const;

 private:
  // events of the programs
  void on_event(const abi::node_event& event);
  /// Are connections to this port restored for a program that takes them, rather than by the kernel?
  [[nodiscard]] bool by_program(std::uint16_t port) const;
  [[nodiscard]] std::string without_kernel_resume() const;
  DepartureWorld departure_world();
  // control messages
  void on_datagram(std::span<const std::byte> datagram, const sys::Endpoint& from);
  void on_part(const abi::flow_key& flow, const control::Incoming& message,
               const sys::Endpoint& from);
  void on_abort(const abi::flow_key& flow, const control::Incoming& message,
                const sys::Endpoint& from);
  void on_segment(const abi::flow_key& flow, const control::Incoming& message);
  bool give_segment(const abi::flow_key& flow, const abi::tombstone& tombstone,
                    std::span<const std::byte> bytes, bool crafted);
  void connect_parts();
  void on_revoked(const abi::flow_key& flow, const abi::wire_header& header);
  void on_heartbeat(const abi::wire_header& answer);
  void announce(const abi::flow_key& flow, const abi::wire_header& commit);
  void open(Arrival arrival);
  void open_claimed(Arrival arrival);
  void go_on(Arrival arrival);
  // stray packets
  void on_packet(Bytes packet);
  // what follows
  void look_for_child(const Opened& opened);
  void child_found(const Opened& opened);
  void child_absent(const Opened& opened, bool backlog_full);
  void confirm(const Opened& opened);
  void refuse(const Opened& opened, Refusal refusal);
  void refuse_unopened(const abi::flow_key& flow, const abi::wire_header& commit,
                       const sys::Endpoint& from, Refusal refusal);
  void answer_again(const abi::flow_key& flow, const abi::tombstone& tombstone,
                    const abi::wire_header& question, const sys::Endpoint& from);
  void delivered(const abi::flow_key& flow);
  void replay(const abi::flow_key& flow);
  void hand_back(const abi::flow_key& flow, const abi::wire_header& question,
                 const sys::Endpoint& from);
  bool hand_back_packet(const abi::flow_key& flow, const Bytes& packet);
  void tick(TimePoint now);
  void expire(const HeldPackets::Expired& expired);
  void keep_attached(TimePoint now);
  void watch_syncookies();

  const config::Config& config_;
  const config::Node& self_;
  Counters counters_;
  control::Secret secret_;
  ControlPort port_;
  control::Opener opener_;
  sys::PinDirectory pins_;
  sys::Netlink netlink_;
  sys::Ledger ledger_;
  control::NodeNetwork network_;
  control::Heartbeat heartbeat_;
  ReplayWindows replays_;
  Programs programs_;
  sys::Tun tun_;
  sys::SockDiag diag_;
  Tombstones tombstones_;
  Answers answers_;
  HeldPackets held_;
  HandBacks hand_backs_;
  Orphans orphans_;
  Assembly assembly_;
  Confirmations confirmations_;
  Endings endings_;
  Openings openings_;
  Handoffs handoffs_;
  Flows flows_;
  Departures departures_;
  FlowMap<Opened>
      unconfirmed_;  ///< being delivered, not yet told: RESUMED when done, or a while after
  std::vector<std::string> warnings_;
  std::string attached_;
  int interface_ = 0;
  std::uint64_t events_lost_ = 0;
  TimePoint next_tick_;  ///< assembly, held packets, children that take long
  TimePoint next_load_;
  TimePoint next_care_;
};

}  // namespace tcpmig::agent
