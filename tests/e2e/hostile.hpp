// SPDX-License-Identifier: MIT
#pragma once
#include <map>
#include <random>
#include <string>
#include <vector>

#include "control/message.hpp"
#include "e2e/traffic.hpp"

/// Traffic in quantity, of people who mean no good.
namespace tcpmig::e2e {

/// A UDP socket inside a node, connected.
class Sprayer {
 public:
  Sprayer(const TestLab& lab, const std::string& node, const sys::Endpoint& to);
  /// True when it went out.
  bool send(const std::string& datagram) const;

 private:
  sys::UniqueFd fd_;
};

/// A control message as its sender makes it, tagged with the lab's own keys, numbered in a lane that no role uses.
class Forger {
 public:
  Forger(const TestLab& lab, const std::string& sender);
  std::string message(std::uint8_t type, const std::string& target, const sys::Endpoint& client,
                      control::Generation generation);
  /// The same message under a new number, with a right tag.
  std::string again(const std::string& datagram);

 private:
  std::string seal(control::Outgoing& message);
  const TestLab& lab_;
  control::Sealer sealer_;
};

/// Wrong in one of many ways: bits turned, cut off, prolonged, or bytes of chance.
std::string spoiled(const std::string& datagram, std::minstd_rand& random);

/// UDP payload of a frame that a ControlTap has recorded.
std::string payload_of(const std::string& frame);
std::uint16_t source_port_of(const std::string& frame);

/// Every counter of the switch, by name.
std::map<std::string, std::uint64_t> switch_counters(const TestLab& lab);
/// What was dropped or refused meanwhile, in all.
std::uint64_t refused_since(const TestLab& lab, const std::map<std::string, std::uint64_t>& before);

/// SYNs from `count` random addresses and ports to a VIP, out of a client's namespace.
void flood_syns(const TestLab& lab, bool ipv6, unsigned count, std::uint32_t seed);

/// The latest TCP numbers of a client's connection: from its own packets.
struct Numbers {
  std::uint32_t seq = 0, ack = 0;
};
std::optional<Numbers> numbers_of(const TestLab& lab, const sys::Endpoint& client);
/// A segment in the name of the client, with a right checksum.
void send_as_client(const TestLab& lab, const sys::Endpoint& from, const sys::Endpoint& to,
                    Numbers numbers, std::uint8_t flags);

}  // namespace tcpmig::e2e
