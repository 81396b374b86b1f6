// SPDX-License-Identifier: MIT
#pragma once
#include <deque>
#include <functional>
#include <memory>
#include <nlohmann/json_fwd.hpp>

#include "agent/departure.hpp"
#include "agent/endings.hpp"
#include "agent/tickets.hpp"
#include "conn/parcel.hpp"
#include "sys/sock_diag.hpp"

namespace tcpmig::agent {

/// Connections that the programs of this node give to other servers (tcpmig/migrate.hpp), from the program's question to its answer; and what a
/// run of the agent that was killed in the middle has left.
class Departures {
 public:
  static constexpr std::size_t kMost = 256;              ///< at a time
  static constexpr std::size_t kMostBytes = 128U << 20;  ///< of what they carry
  static constexpr std::size_t kMostLeft = 4096;         ///< whose late packets are sent after them

  /// Whether a flow's request is still being delivered to its program.
  using Delivering = std::function<bool(const abi::flow_key&)>;
  Departures(DepartureWorld world, sys::SockDiag& diag, Endings& endings, Delivering delivering);
  ~Departures();
  Departures(const Departures&) = delete;
  Departures& operator=(const Departures&) = delete;

  /// What a program says that gives a connection away. What is left of either is to be closed by who may be held up by that.
  void take(sys::UniqueFd& channel, conn::Parcel& parcel);
  /// An answer to a transfer of ours. False: to none that is under way.
  bool take_answer(const abi::flow_key& flow, const control::Incoming& message);
  [[nodiscard]] bool has(const abi::flow_key& flow) const { return departures_.contains(flow); }
  /// Its socket is frozen, here or in the hands of a program.
  [[nodiscard]] bool is_frozen(const abi::flow_key& flow) const;
  /// A transfer brings the flow to this node.
  void comes_back(const abi::flow_key& flow);
  /// A packet without a socket: goes after its connection, if that has left a short time ago.
  bool send_on(const abi::flow_key& flow, std::span<const std::byte> segment, bool crafted = false);
  /// What a server that has refused it gives back. False: there was no such transfer.
  bool take_handed_back(const abi::flow_key& flow, const control::Incoming& message);
  /// A transfer has brought the flow to this node: segments that were late for its former connection here, which nobody else has.
  [[nodiscard]] std::vector<Bytes> take_late(const abi::flow_key& flow);

  /// Readable when on_events() has something to do.
  [[nodiscard]] int events_fd() const noexcept { return epoll_.get(); }
  void on_events();
  [[nodiscard]] TimePoint due() const;
  void run(TimePoint now);
  [[nodiscard]] nlohmann::json status() const;

 private:
  struct Freezer;  ///< made when the first connection leaves
  struct Refused;  ///< why a connection is not given away
  struct Left {
    control::Transfer owner;
    TimePoint until;
  };
  struct Late {
    std::vector<Bytes> segments;
    TimePoint until;
  };
  struct Returned {
    DepartureRecord record;
    TimePoint until;
  };
  struct Orphan {
    DepartureRecord record;
    TimePoint next;
    TimePoint deadline;
  };

  void migrate(sys::UniqueFd& channel, conn::Parcel& parcel);
  void recover(sys::UniqueFd& channel, sys::UniqueFd& connection);
  void recover_unknown(sys::UniqueFd& channel, sys::UniqueFd& connection, const Accepted& seen);
  void recover_known(sys::UniqueFd& channel, sys::UniqueFd& connection,
                     const DepartureRecord& record);
  static Bytes blob_of(int fd);
  void require_room() const;
  Frozen freeze_whole(sys::UniqueFd& connection);
  DepartureRecord examine(int connection) const;
  const config::PoolServer& find_target(const DepartureRecord& record,
                                        const std::string& name) const;
  [[nodiscard]] const config::PoolServer* find_server(std::uint16_t node, std::uint16_t port) const;
  void start(sys::UniqueFd& channel, DepartureRecord record, const config::PoolServer& target,
             sys::UniqueFd& connection, const Bytes& blob);
  Freezer& freezer();
  void enter(std::unique_ptr<Departure> departure);
  void sweep(TimePoint now);
  void look_after(Orphan& orphan, TimePoint now);
  void end(const DepartureRecord& record, TimePoint now);
  void remember(const Departure& departure, TimePoint now);
  void settle(const abi::flow_key& flow);

  DepartureWorld world_;
  sys::SockDiag& diag_;
  Endings& endings_;
  Delivering delivering_;
  sys::UniqueFd epoll_;
  sys::UniqueFd grace_event_;
  std::unique_ptr<Freezer> freezer_;
  FlowMap<std::unique_ptr<Departure>> departures_;
  FlowMap<Left> left_;
  std::deque<std::pair<TimePoint, abi::flow_key>> left_until_;  ///< as they left, oldest first
  FlowMap<Late> late_;
  FlowMap<Returned> returned_;
  TimePoint next_sweep_;  ///< of these two
  TimePoint next_sign_;   ///< of life, to the programs that wait
  std::vector<Orphan> orphans_;
};

}  // namespace tcpmig::agent
