// SPDX-License-Identifier: MIT
#pragma once
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <tcpmig/resume.hpp>

#include "agent/doors.hpp"
#include "agent/offer_lock.hpp"
#include "agent/openings.hpp"
#include "agent/tickets.hpp"
#include "conn/parcel.hpp"
#include "sys/aside.hpp"

namespace tcpmig::agent {

/// Connections that are restored by TCP_REPAIR and given to a program (handover/handover.h is how). Needs no kfunc. The tombstone is
/// claimed all the while (OPENING).
///
///             open()
///               |  ticket to the listener               open(), server with `handoff`
///               v                                          |  connects to the program's socket
///           KNOCKING --- CLAIM: restored, in repair --> OFFERED --- TAKEN ---> it leaves repair, GO: Taken
///               |                                          |
///               +---- deadline, ABORT, program ended ------+-----> closed in repair: Refused. Nothing was ever sent
///
/// While it is in repair a filter keeps what the client sends, which the kernel would acknowledge (OfferLock).
/// So what ends the agent, the program or the transfer before TAKEN leaves a connection that any other server may take.
class Handoffs {
 public:
  static constexpr std::size_t kMost = 4096;             ///< transfers that wait for their programs
  static constexpr std::size_t kMostBytes = 256U << 20;  ///< that they hold
  static constexpr std::size_t kMostAskers =
      1024;  ///< programs (or whoever) that have connected and said nothing yet
  static constexpr std::size_t kMostOfOneUser = 256;  ///< of them

  using Taken = std::function<void(const Opened&)>;
  using Refused = std::function<void(const Opened&, Refusal)>;
  /// `deliver`: gives the kernel a packet as if received (the FIN of a client that has closed). Listens for claims; throws std::system_error.
  Handoffs(const config::Config& config, const config::Node& self, const Tombstones& tombstones,
           sys::SockDiag& diag, Deliver deliver, Counters& counters, Taken taken, Refused refused);
  ~Handoffs();
  Handoffs(const Handoffs&) = delete;
  Handoffs& operator=(const Handoffs&) = delete;

  /// What an asker says that is no CLAIM. What is left of either is closed.
  using Others = std::function<void(sys::UniqueFd& channel, conn::Parcel& parcel)>;
  void others(Others others) { others_ = std::move(others); }

  /// Captured for a connection that was refused then. False: nobody wants it.
  using GiveBack =
      std::function<bool(const Opened&, std::uint16_t port, std::span<const std::byte> segment)>;
  void give_back(GiveBack give_back) { give_back_ = std::move(give_back); }
  /// One that was refused when its client might have heard of it already: if the switch leaves it to this node, its client must hear of an end.
  using HalfAlive = std::function<void(const Opened&, const sys::Endpoint& local, Seq snd_nxt)>;
  void half_alive(HalfAlive half_alive) { half_alive_ = std::move(half_alive); }

  /// For what strangers have given.
  [[nodiscard]] sys::Aside& aside() noexcept { return aside_; }

  /// A program's own socket is named for this port (`handoff`).
  [[nodiscard]] bool has_socket(std::uint16_t port) const { return paths_.contains(port); }
  /// The tombstone is claimed. nullopt: under way, Taken or Refused will be called.
  std::optional<Refusal> open(const Opened& opened, Arrival arrival);
  [[nodiscard]] bool has(const abi::flow_key& flow) const { return waiting_.contains(flow); }
  /// A question about a transfer that is under way: a repeat is answered when it is decided; ABORT decides it. False: it is not.
  bool ask(const abi::flow_key& flow, const abi::wire_header& question, const sys::Endpoint& from);
  /// There is a newer transfer of this flow: the program will get nothing of this one.
  void forget(const abi::flow_key& flow);
  /// Whether this socket (SO_COOKIE) was offered, and taken back before it lived. It is in repair for ever: its program, which may be
  /// stopped, closes it in silence, whereas SOCK_DESTROY would send a RST.
  [[nodiscard]] bool was_withdrawn(std::uint64_t cookie) const;

  /// Readable when on_events() has something to do.
  [[nodiscard]] int events_fd() const noexcept { return epoll_.get(); }
  void on_events();
  [[nodiscard]] TimePoint due() const;
  void run(TimePoint now);
  [[nodiscard]] nlohmann::json status() const;

 private:
  struct Waiting {
    Opened opened;
    Arrival arrival;
    std::optional<Ticket> ticket;  ///< KNOCKING
    sys::UniqueFd channel;         ///< OFFERED: to the program
    sys::UniqueFd connection;      ///< OFFERED: in repair
    Bytes blob;                    ///< of a whole connection
    Bytes rest;                    ///< likewise: what its program shall send first
    std::size_t to_send = 0;       ///< bytes that the send queue must take
    Snapshot snapshot;             ///< OFFERED: of it, without the received bytes
    TimePoint deadline;
    std::size_t bytes = 0;
  };
  using Entry = FlowMap<Waiting>::iterator;

  std::optional<Refusal> knock(Waiting& waiting);
  std::optional<Refusal> hand_to_socket(Waiting& waiting, const std::string& path);
  Snapshot unpack(Waiting& waiting) const;
  static void offer_to_socket(Waiting& waiting);
  void restore(Waiting& waiting, const std::optional<Accepted>& likeness, int like);
  void watch(int fd, std::uint32_t events);

  void accept_askers();
  void hear_asker(int fd);
  sys::UniqueFd forget_asker(int fd);
  void claim(sys::UniqueFd channel, sys::UniqueFd accepted);
  void offer(Entry entry, sys::UniqueFd channel, const Accepted& ticket, sys::UniqueFd accepted);
  void hear_ticket(Entry entry);
  /// True: decided.
  bool hear_program(Entry entry);
  const ResumeKit& kit();
  void give(Entry entry);
  void give_life(Waiting& waiting);
  void forget_descriptors(const Waiting& waiting);
  void replay(const Waiting& waiting);
  void go_live(const Waiting& waiting);
  void end(Entry entry, Refusal refusal);
  void withdraw(Entry entry, Refusal refusal);
  void note_withdrawn(const Waiting& waiting);
  void hand_back(const Waiting& waiting, const std::vector<CapturedSegment>& captured);
  void close(Waiting& waiting);
  void close_all(conn::Parcel& parcel);
  void drop(Entry entry);
  void time_out(Entry entry, TimePoint now);
  bool still_ours(const Waiting& waiting) const;

  const config::Config& config_;
  const config::Node& self_;
  const Tombstones& tombstones_;
  sys::SockDiag& diag_;
  Deliver deliver_;
  Counters& counters_;
  Taken taken_;
  Refused refused_;
  Others others_;
  HalfAlive half_alive_;
  GiveBack give_back_;
  std::unique_ptr<ResumeKit> kit_;  ///< made when the first connection comes that wants it
  OfferLock offered_;
  Doors doors_;
  std::map<std::uint16_t, std::string> paths_;  ///< `handoff` by port
  sys::UniqueFd epoll_;
  sys::UniqueFd listener_;
  struct Asker {
    sys::UniqueFd channel;
    TimePoint deadline;  ///< by when it must have spoken
    uid_t user;
  };
  std::map<int, Asker> askers_;
  std::map<uid_t, std::size_t> askers_of_;  ///< how many
  sys::Aside aside_;
  FlowMap<Waiting> waiting_;
  std::deque<std::uint64_t> withdrawn_;  ///< cookies, the latest kMost
  std::size_t bytes_ = 0;                ///< of all of them
  std::map<int, abi::flow_key> flows_;   ///< of tickets and channels
  TimePoint next_accept_;                ///< no descriptor was left
};

}  // namespace tcpmig::agent
