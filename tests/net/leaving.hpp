// SPDX-License-Identifier: MIT
#pragma once
#include <sys/socket.h>

#include <expected>
#include <future>
#include <tcpmig/migrate.hpp>
#include <tcpmig/resume.hpp>

#include "agent_steps.hpp"
#include "conn/parcel.hpp"

// What the tests of connections that programs give away do alike. The test plays the switch and the other server.
namespace agent_test {

/// The program's socket of port 81.
UniqueFd listen_for_handoff(const World& world);
void send_whole(World& world, const tcpmig::control::Transfer& transfer,
                const tcpmig::Snapshot& snapshot, const Bytes& payload);
/// In the middle: something sent and not acknowledged, something not sent.
tcpmig::Snapshot in_the_middle(const Endpoint& client, std::size_t unsent = 500);
/// Of the message that waits there; it stays.
UniqueFd peeked_descriptor(const UniqueFd& channel);
/// What filters of this socket have kept from it.
std::uint32_t drops_of(const UniqueFd& fd);
/// Connected to an agent's socket; and one of its messages with descriptors sent there.
UniqueFd connected_to(const std::string& agent);
UniqueFd asked(const std::string& agent, char verb, const std::string& text,
               std::span<const int> descriptors);
/// A connection whose last close() takes twenty seconds, and who does not read it.
struct Lingering {
  UniqueFd fd, reader;
  explicit Lingering(const World& world);
};
/// The agent still does its work.
bool is_awake(const World& world);
pid_t pid_of(const World& world);
/// Stands still from then on.
void stop(pid_t process);
int number_of(const UniqueFd& fd, int level, int name);

/// The answer: error, and whether the connection is still here.
struct Told {
  int error = -1;
  bool here = false;
  std::string reason;
};
Told told(const UniqueFd& channel);

/// A connection on port 80 that its program gives to "s2"; the test hears what the agent says of it.
struct Leaving {
  World world;
  UniqueFd listener = world.listener();
  UniqueFd connection;
  Endpoint client;
  std::future<std::expected<void, tcpmig::MigrateRefused>> outcome;
  tcpmig::control::Sealer other_server;

  explicit Leaving(Endpoint from, const std::string& transfer = "500ms",
                   const std::string& extra = {});
  void leave(std::string target = "s2", Bytes blob = pattern(10));
  [[nodiscard]] std::string agent() const {
    return world.config.paths("s1").handover_socket().string();
  }
  /// The next message of this type to the switch.
  tcpmig::abi::wire_header said(tcpmig::abi::wire_type type, bool take_back = false);
  /// `payload`: behind the header, as of the other server.
  void answer(const tcpmig::abi::wire_header& commit, tcpmig::abi::wire_type type,
              tcpmig::abi::wire_reason reason, bool by_switch, std::uint32_t current = 0,
              const Bytes& payload = {});
  /// The switch lets it be taken back: what its program hears.
  int taken_back();
};

}  // namespace agent_test
