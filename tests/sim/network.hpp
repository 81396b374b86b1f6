// SPDX-License-Identifier: MIT
#pragma once
#include <array>
#include <cstdint>
#include <queue>
#include <set>
#include <string>
#include <vector>

#include "config/config.hpp"
#include "shared/wire.h"
#include "sim/letters.hpp"
#include "sim/switch_host.h"
#include "sim/task.hpp"
#include "sim/world.hpp"

namespace tcpmig::sim {

class Client;
class Dispatcher;
class Server;
class SwitchRun;

/// Nodes, as the switch knows them. Of the second dispatcher there is only the host.
inline constexpr std::uint16_t kSwitch = 0, kDispatcher = 1, kOtherDispatcher = 2, kServer0 = 3,
                               kServers = 3;

/// Milliseconds since the start of the run.
using Millis = std::uint64_t;

/// What the cluster is configured with.
inline constexpr Millis kTransfer = 2000, kRetry = 50, kHold = 1000, kRecovery = 2000;

inline constexpr unsigned kParts = 3;  ///< of an answer
inline constexpr std::uint32_t kFirstGeneration = 1000;

/// A segment of the client.
struct ClientSegment {
  unsigned seq = 0;
  Letters data{};
  unsigned answer = 0;  ///< parts of the answer that it has: what it acknowledges
};

/// A segment from the side of the service.
struct Segment {
  std::uint16_t node = 0;  ///< who speaks
  unsigned life =
      0;  ///< of a server's connection; 0: the kernel, which has none, or a dispatcher's
  unsigned execution = 0;        ///< of the request: whose answer it is
  unsigned part = 0, parts = 0;  ///< of the answer; parts 0: no data
  unsigned acknowledged = 0;     ///< bytes of the client
  unsigned seq = 0;              ///< of a RST
  bool reset = false, fin = false;
};

/// A control message, as far as it matters.
struct Message {
  std::uint8_t type = 0;
  std::uint8_t reason = 0;
  std::uint16_t sender = 0, target = 0;
  std::uint16_t part = 0, parts = 1;
  std::uint32_t generation = 0;
  std::uint32_t number = 0;  ///< every one that is sent has its own
  std::uint32_t current = 0;
  std::uint32_t boot = 0;  ///< COMMIT, DATA: in which boot of the switch the transfer began
  Letters data{};          ///< COMMIT, DATA: this part's share of what the client has sent; SEGMENT
  unsigned seq = 0;        ///< SEGMENT: of the first byte
  unsigned length = 0;     ///< COMMIT, DATA: of all parts
  bool whole = false;      ///< COMMIT, DATA: a whole connection ..
  unsigned delivered = 0;  ///< .. of whose answer the client has so many parts ..
  unsigned execution = 0;  ///< .. and what its program was busy with
  bool crafted = false;    ///< SEGMENT: acknowledged already
  std::uint8_t missing = 0;  ///< MISSING: a bit for each part
};

/// Time, what is on its way, and who is where.
class Network {
 public:
  Network(const Scenario& scenario, Chooser& chooser);
  struct Parties {
    Client* client = nullptr;
    Dispatcher* dispatcher = nullptr;
    SwitchRun* switch_run = nullptr;
    std::array<Server*, kServers> servers{};
  };
  void connect(const Parties& parties) { parties_ = parties; }

  SwitchRun& switch_run() { return *parties_.switch_run; }
  [[nodiscard]] const Dispatcher& dispatcher() const { return *parties_.dispatcher; }

  [[nodiscard]] Millis now() const noexcept { return now_; }
  [[nodiscard]] std::uint64_t now_ns() const noexcept { return 1 + now_ * 1'000'000; }
  [[nodiscard]] const Scenario& scenario() const noexcept { return scenario_; }
  [[nodiscard]] const config::Timeouts& timeouts() const noexcept { return timeouts_; }
  [[nodiscard]] bool mutated(Mutation mutation) const { return scenario_.mutation == mutation; }
  Chooser& chooser() { return chooser_; }
  void after(Millis delay, const Task& what);
  /// Until nothing happens any more, or ten minutes have passed.
  void run_to_rest();

  // What is sent. Each may be lost, doubled or late.
  void from_client(const ClientSegment& segment);
  void from_node(const Segment& segment);
  void to_switch(Message message);
  void to_node(const Message& message);
  /// A RST of `switch run` for the client.
  void reset_client(unsigned seq);
  /// A request gets a number when somebody begins to answer it.
  unsigned new_execution() { return ++executions_; }

  [[nodiscard]] std::uint32_t boot() const noexcept { return boot_; }

  /// The network has lost something, or kept it for longer than a client waits: then it has to send again.
  [[nodiscard]] bool hurt() const noexcept { return hurt_ || hurt_parts_; }
  /// The same without DATA, which is asked for again.
  [[nodiscard]] bool hurt_but_for_parts() const noexcept { return hurt_; }
  [[nodiscard]] bool was_killed(Victim victim) const {
    return killed_.at(static_cast<std::size_t>(victim));
  }
  [[nodiscard]] bool anybody_killed() const noexcept { return kills_ > 0; }
  /// What the switch has let through against the rules.
  [[nodiscard]] const std::string& violation() const noexcept { return violation_; }

 private:
  struct Event {
    Millis when;
    std::uint64_t order;
    Task what;
    bool operator>(const Event& other) const {
      return when != other.when ? when > other.when : order > other.order;
    }
  };
  void carry(const Task& deliver, bool is_data = false);
  /// With TCPMIG_SIM_TRACE: what happens, after what the switch thinks.
  void say(const char* what, unsigned a = 0, unsigned b = 0, unsigned c = 0, unsigned d = 0) const;
  void strike();
  void lose_table();
  void at_switch_from_client(const ClientSegment& segment);
  void at_switch_from_node(const Segment& segment);
  void at_switch(const Message& message);
  void bounce(const Message& message, std::uint8_t type, std::uint8_t reason,
              std::uint32_t current);
  void deliver(const Message& message);
  Server& server(std::uint16_t node) { return *parties_.servers.at(node - kServer0); }

  const Scenario& scenario_;
  Chooser& chooser_;
  const config::Timeouts timeouts_;
  Parties parties_;
  Millis now_ = 0;
  std::uint64_t order_ = 0;
  std::uint32_t numbers_ = 0, boot_ = 1;
  unsigned faults_left_, kills_ = 0, executions_ = 0;
  bool hurt_ = false, hurt_parts_ = false;
  std::array<bool, kVictims + 1> killed_{};
  std::string violation_;
  std::priority_queue<Event, std::vector<Event>, std::greater<>> events_;
  std::vector<bool> seen_;  ///< the switch's replay window, by number
};

}  // namespace tcpmig::sim
