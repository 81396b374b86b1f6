// SPDX-License-Identifier: MIT
#pragma once
#include <array>
#include <cstdint>
#include <functional>
#include <queue>
#include <set>
#include <vector>

#include "sim/world.hpp"

namespace tcpmig::sim {

class Client;
class Dispatcher;
class Server;

/// Nodes, as the switch knows them.
inline constexpr std::uint16_t kSwitch = 0, kDispatcher = 1, kServer0 = 2, kServers = 3;

/// Milliseconds since the start of the run.
using Millis = std::uint64_t;

/// What the cluster is configured with.
inline constexpr Millis kTransfer = 2000, kRetry = 50, kHold = 1000, kRecovery = 2000;

/// A segment from the side of the service.
struct Segment {
  std::uint16_t node = 0;        ///< who speaks
  std::uint32_t life = 0;        ///< which of its connections
  unsigned part = 0, parts = 0;  ///< of the answer; parts 0: no data
  unsigned acknowledged = 0;     ///< pieces of the client's further data
  bool reset = false, fin = false;
};

/// A control message, as far as it matters.
struct Message {
  std::uint8_t type = 0;
  std::uint16_t sender = 0, target = 0;
  std::uint32_t generation = 0;
  std::uint64_t number = 0;  ///< every one that is sent has its own
  std::uint8_t reason = 0;
  std::uint32_t current = 0;
  std::uint32_t boot = 0;  ///< COMMIT: in which boot of the switch the transfer began
  unsigned piece = 0;      ///< SEGMENT: which piece of the client's further data
};

/// Time, what is on its way, and who is where.
class Network {
 public:
  Network(const Scenario& scenario, Chooser& chooser) : scenario_(scenario), chooser_(chooser) {
    faults_left_ = scenario.faults;
  }
  void connect(Client& client, Dispatcher& dispatcher,
               const std::array<Server*, kServers>& servers);

  [[nodiscard]] Millis now() const noexcept { return now_; }
  [[nodiscard]] const Scenario& scenario() const noexcept { return scenario_; }
  [[nodiscard]] bool mutated(Mutation mutation) const { return scenario_.mutation == mutation; }
  Chooser& chooser() { return chooser_; }
  void after(Millis delay, std::function<void()> what);
  /// The switch loses its table now, and recovers.
  void lose_table();
  /// Until nothing happens any more, or ten minutes have passed.
  void run_to_rest();

  // What is sent. Each may be lost, doubled or late.
  /// `piece` of its further data, 0: none; `parts` of the answer that it has.
  void from_client(std::uint8_t tcp_flags, unsigned piece, unsigned parts = 0);
  void from_node(const Segment& segment);
  void to_switch(Message message);
  void to_node(const Message& message);
  std::uint64_t number() { return ++numbers_; }

 private:
  struct Event {
    Millis when;
    std::uint64_t order;
    std::function<void()> what;
    bool operator>(const Event& other) const {
      return when != other.when ? when > other.when : order > other.order;
    }
  };
  void carry(const std::function<void()>& deliver);
  void at_switch_from_client(std::uint8_t tcp_flags, unsigned piece, unsigned parts);
  void at_switch(const Message& message);
  void bounce(const Message& message, std::uint8_t type, std::uint8_t reason,
              std::uint32_t current);
  void revoke();
  Server& server(std::uint16_t node) { return *servers_[node - kServer0]; }

  const Scenario& scenario_;
  Chooser& chooser_;
  Millis now_ = 0;
  std::uint64_t order_ = 0, numbers_ = 0;
  unsigned faults_left_ = 0;
  std::priority_queue<Event, std::vector<Event>, std::greater<>> events_;
  std::set<std::uint64_t> seen_;  ///< the switch's replay window
  Client* client_ = nullptr;
  Dispatcher* dispatcher_ = nullptr;
  std::array<Server*, kServers> servers_{};
};

}  // namespace tcpmig::sim
