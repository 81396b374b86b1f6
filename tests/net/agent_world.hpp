// SPDX-License-Identifier: MIT
#pragma once
#include <sys/types.h>

#include <filesystem>
#include <map>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <tcpmig/snapshot.hpp>
#include <vector>

#include "config/config.hpp"
#include "control/transfer_messages.hpp"
#include "sys/netns.hpp"
#include "sys_support.hpp"

// A server node with its agent in one network namespace; in the other one the test plays the rest of the world: switch, dispatcher,
// clients.
//
//   outside: switch, dispatcher "d1" (id 1)            server "s1" (id 2)
//        o0 10.77.0.1/24, fd77::1/64  ------------  eth0 10.77.0.2/24, fd77::2/64
//
// Service "web" (id 5): VPA 100.64.128.5 and fd7c::2:5. Clients 198.51.100.0/24 and 2001:db8:5::/64 are addresses of nobody.
namespace agent_test {

using tcpmig::sys::Endpoint;
using tcpmig::sys::UniqueFd;
using Bytes = std::vector<std::byte>;
using namespace std::chrono_literals;

/// Prints why this machine cannot run the test, and returns true. Most are about kernel resume, which not every kernel has.
bool cannot_run_here();
/// The same for what needs no kernel resume: connections that are handed over.
bool cannot_hand_over_here();

Bytes bytes_of(std::string_view text);
std::string text_of(const Bytes& bytes);
/// `length` bytes that are nowhere alike.
Bytes pattern(std::size_t length);

/// A message that reached the dispatcher.
struct Answer {
  tcpmig::abi::wire_header header{};
  Bytes payload;
};

bool is_resumed(const std::optional<Answer>& answer);
bool is_refused(const std::optional<Answer>& answer, tcpmig::abi::wire_reason reason);

/// A TCP segment that the server sent towards a client.
struct Sent {
  Endpoint to;
  std::uint32_t seq = 0, ack = 0;
  std::uint8_t flags = 0;  ///< FIN 1, SYN 2, RST 4, PSH 8, ACK 16
  Bytes data;
};
enum TcpFlag : std::uint8_t { kFin = 1, kSyn = 2, kRst = 4, kPsh = 8, kAck = 16 };

class World {
 public:
  /// `extra`: more of the configuration file (limits, timeouts). `handoff`: port 81 is handed over there; and there is
  /// a server "s2" (id 3), which the test may play, too.
  explicit World(const std::string& extra = {}, bool handoff = false);
  ~World();
  World(const World&) = delete;
  World& operator=(const World&) = delete;

  // the agent, a process of its own
  void start();
  /// Returns its exit code; 128 + signal when it was killed.
  int stop(int signal);
  [[nodiscard]] std::optional<nlohmann::json> status() const;
  /// A counter of the programs or of the agent ("opened", "confirmed", ..).
  [[nodiscard]] std::uint64_t counter(const std::string& name) const;
  [[nodiscard]] bool reaches(const std::string& name, std::uint64_t value) const;

  // the server
  [[nodiscard]] UniqueFd listener(std::uint16_t port = 80, bool ipv6 = true,
                                  int backlog = 64) const;
  [[nodiscard]] tcpmig::sys::EnterNetns server() const { return tcpmig::sys::EnterNetns(server_); }
  [[nodiscard]] tcpmig::sys::EnterNetns outside() const {
    return tcpmig::sys::EnterNetns(outside_);
  }
  /// This end of a connection of a client.
  static Endpoint vpa(const Endpoint& client, std::uint16_t port = 80);

  // the dispatcher
  /// Seals with the right keys (unless `secret` is another one) and sends to the server's control port.
  void send(tcpmig::control::Outgoing message);
  /// The same in the name of the switch.
  void send_as_switch(tcpmig::control::Outgoing message);
  void send_raw(std::span<const std::byte> datagram, bool ipv4 = true);
  void transfer(const tcpmig::control::Transfer& transfer, const tcpmig::Snapshot& snapshot);
  /// Sealed, not sent.
  Bytes sealed(tcpmig::control::Outgoing message);
  static Bytes sealed_by(tcpmig::control::Sealer& sealer, tcpmig::control::Outgoing& message);
  /// The next answer (LOAD left out); nullopt: none within the time.
  std::optional<Answer> answer(std::chrono::milliseconds within = 5s);
  /// The agent's next heartbeat; and an answer to it, as of this boot of the switch.
  tcpmig::abi::wire_header heartbeat();
  void answer_heartbeat(const tcpmig::abi::wire_header& heartbeat, std::uint32_t boot);
  /// The next message to the switch (GONE, RENEW).
  std::optional<tcpmig::abi::wire_header> to_switch(std::chrono::milliseconds within = 5s);
  std::optional<tcpmig::abi::wire_header> load(std::chrono::milliseconds within = 5s);

  // clients
  /// Puts a client's TCP segment (header and data) for `local` onto the wire.
  void send_segment(const Endpoint& client, const Endpoint& local,
                    std::span<const std::byte> segment);
  void send_segment(const Endpoint& client, std::uint32_t seq, std::uint32_t ack,
                    std::uint8_t flags, std::string_view data = {}, std::uint16_t port = 80);
  /// What the server has sent since the last call.
  std::vector<Sent> sent();
  [[nodiscard]] std::size_t resets();

  tcpmig::config::Config config;
  [[nodiscard]] const tcpmig::config::Node& self() const { return *config.find_node("s1"); }
  [[nodiscard]] const std::filesystem::path& directory() const { return directory_; }

 private:
  /// The next one at the control port of the other side whose type is wanted.
  std::optional<Bytes> control_datagram(const std::function<bool(std::uint8_t)>& wanted,
                                        std::chrono::milliseconds within);
  [[nodiscard]] std::string text(const std::string& extra, bool handoff) const;
  std::string name_, outside_, server_;
  std::filesystem::path directory_;
  pid_t agent_ = -1;
  UniqueFd packets_;  ///< AF_PACKET on o0
  int interface_ = 0;
  std::array<std::uint8_t, 6> server_mac_{};
  UniqueFd dispatcher4_, dispatcher6_;  ///< where COMMITs come from
  UniqueFd control4_, control6_;        ///< control port: LOAD, GONE, RENEW
  std::optional<tcpmig::control::Sealer> sealer_;
  std::optional<tcpmig::control::Sealer> switch_sealer_;
  std::optional<tcpmig::control::Opener> opener_;
};

/// A client with everything negotiated: `received` is its request.
tcpmig::Snapshot snapshot_of(const Endpoint& client, Bytes received);
tcpmig::control::Transfer transfer_of(const Endpoint& client, std::uint32_t generation = 1000,
                                      std::uint16_t port = 80);
Endpoint client4(std::uint16_t port);
Endpoint client6(std::uint16_t port);

/// The next connection of a listener, non-blocking; nothing within the time: an empty descriptor.
UniqueFd accepted(const UniqueFd& listener, std::chrono::milliseconds within = 5s);
Endpoint peer_of(const UniqueFd& socket);
/// Reads until `length` bytes are there, the peer ends, or the time is over.
Bytes read_bytes(const UniqueFd& socket, std::size_t length, std::chrono::milliseconds within = 5s);

}  // namespace agent_test
