// SPDX-License-Identifier: MIT
#pragma once
#include <array>
#include <cstdint>
#include <random>
#include <span>
#include <vector>

#include "bpf/switch_rig.hpp"

/// Datagrams for the switch's control port that somebody sends who must not get anything by them:
/// made from real ones, cheaply, so that a test or a benchmark can send a million.
namespace flood {

enum class Kind {
  kRandom,     ///< bytes that mean nothing, to the control port
  kMutated,    ///< a real message, up to four bits of its frame turned
  kTruncated,  ///< a real message, cut off anywhere
  kLength,     ///< a real message, one of its three lengths is another
  kTag,        ///< a real message with a tag of chance
  kReplayed,   ///< a real message once more; or another one, rightly tagged, with an old number
  kStale,      ///< of the owner or of the previous one, right but for its generation
  kUnknown,    ///< right but for a node or service that there is not
  kStranger,   ///< rightly tagged by a node that neither owns the flow nor may dispatch it
  kClients,    ///< any of the above, from the side of the clients
};
inline constexpr std::array kKinds{
    Kind::kRandom,   Kind::kMutated, Kind::kTruncated, Kind::kLength,   Kind::kTag,
    Kind::kReplayed, Kind::kStale,   Kind::kUnknown,   Kind::kStranger, Kind::kClients};

inline constexpr unsigned kGeneration = 1000;
inline constexpr std::uint16_t kFirstPort = 40000, kFlows = 10, kGone = 3;

/// Ten owned flows (ports kFirstPort ..), put into the table by messages that are then the seeds.
/// One of them, kGone, is closing.
class Flood {
 public:
  Flood(const rig::World& world, std::uint32_t seed);
  /// The next frame of a kind; good until the next call.
  std::span<const std::uint8_t> make(Kind kind);
  Kind any_kind() { return kKinds[random() % kKinds.size()]; }
  std::uint32_t random() { return static_cast<std::uint32_t>(random_()); }

 private:
  [[nodiscard]] std::size_t header_offset() const;
  tcpmig::abi::wire_header header() const;
  void put(const tcpmig::abi::wire_header& header);
  /// Numbered anew and tagged with its sender's key.
  void put_tagged(tcpmig::abi::wire_header header);
  void take_seed();
  void fill();
  void mutate();
  void cut();
  void change_length();
  void stale();
  void unknown();
  void stranger();

  const rig::World& world_;
  std::minstd_rand random_;
  std::vector<rig::Bytes> seeds_;
  rig::Bytes frame_;
};

/// Runs programs of the switch without asking what came out: as quick as the kernel lets us.
class Gun {
 public:
  explicit Gun(const rig::World& world);
  /// Nanoseconds that the program ran, by the kernel's clock.
  std::uint32_t clients(std::span<const std::uint8_t> frame) { return fire(clients_, frame); }
  std::uint32_t nodes(std::span<const std::uint8_t> frame) { return fire(nodes_, frame); }

 private:
  struct Side {
    int program;
    unsigned ifindex;
  };
  std::uint32_t fire(const Side& side, std::span<const std::uint8_t> frame) const;
  rig::Backend backend_;
  Side clients_, nodes_;
};

}  // namespace flood
