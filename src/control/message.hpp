// SPDX-License-Identifier: MIT
#pragma once
#include <cstddef>
#include <cstdint>
#include <expected>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include <tcpmig/snapshot.hpp>
#include "config/config.hpp"
#include "control/keys.hpp"
#include "shared/wire.h"
#include "sys/address.hpp"

namespace tcpmig::control {

/// Generations: numbers modulo 2^27 compared serially (bpf/shared/flow.h, RFC 1982).
using Generation = std::uint32_t;
Generation first_generation();  ///< from CLOCK_REALTIME, units of 16 ms
constexpr Generation next_generation(Generation g) { return (g + 1) & abi::GENERATION_MASK; }
/// a is newer than b
constexpr bool newer(Generation a, Generation b) {
  const Generation distance = (a - b) & abi::GENERATION_MASK;
  return distance != 0 && distance < (1U << (abi::GENERATION_BITS - 1));
}

/// What a transfer is about, apart from the connection's TCP state.
struct Transfer {
  std::uint16_t sender = 0, target = 0, service = 0;
  std::uint16_t target_port = 0;
  std::uint8_t lane = 0;
  Generation generation = 0;
  sys::Endpoint client;
};

/// A message as it goes out: the header (untagged) and its payload.
struct Outgoing {
  abi::wire_header header{};
  std::span<const std::byte> payload;
};

/// Puts sequence, key id and the tags that the type calls for into the header. `sequence` must rise for each message of this (sender, lane).
/// Node 0 is the switch: what it says is under the key that it shares with the target.
class Sealer {
 public:
  Sealer(const Secret& secret, std::uint16_t node, std::uint8_t lane);
  /// Message numbers: wall-clock seconds at start << 32, then counting: a restart goes on above everything sent before.
  void seal(Outgoing& message);

 private:
  abi::key_ring switch_keys_{};
  std::vector<abi::key_ring> pair_keys_;  ///< by target
  std::uint8_t key_id_ = 0;
  std::uint16_t node_ = 0;
  std::uint8_t lane_ = 0;
  std::uint64_t sequence_ = 0;
};

/// Why a datagram was not taken.
enum class Reject {
  kTruncated,
  kMagic,
  kVersion,
  kLength,
  kField,
  kNotForUs,
  kUnknownKey,
  kTag,
  kSender
};
std::string to_string(Reject reject);

/// A datagram that was received, checked and whose tag fits.
struct Incoming {
  abi::wire_header header{};
  std::span<const std::byte> payload;  ///< view into the datagram
};

/// Checks bytes from the network. Never throws. `node`: own id. The secret yields a key for any id; but nobody is heard who is not a
/// node of the configuration (kUnknownKey), or whose role does not say such a thing (kSender).
class Opener {
 public:
  Opener(const Secret& secret, const config::Config& config, std::uint16_t node);
  std::expected<Incoming, Reject> open(std::span<const std::byte> datagram) const;

 private:
  struct Peer {
    abi::key_ring keys{};
    abi::node_role role = abi::NODE_NONE;
  };
  std::uint16_t node_ = 0;
  std::vector<Peer> peers_;  ///< by sender; 0 = the switch
};

/// Snapshot of a transfer, given all its parts' payloads in order and the header of its COMMIT. Error: a sentence.
std::expected<Snapshot, std::string> to_snapshot(const abi::wire_header& commit,
                                                 std::vector<std::byte> received,
                                                 const sys::Endpoint& local);

/// Text of a wire_reason.
std::string reason_text(std::uint8_t reason);

}  // namespace tcpmig::control
