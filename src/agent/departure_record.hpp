// SPDX-License-Identifier: MIT
#pragma once
#include <cstdint>
#include <filesystem>
#include <vector>

#include "conn/silent_visit.hpp"
#include "control/message.hpp"
#include "shared/flow.h"

namespace tcpmig::agent {

/// What the next run of the agent must know of a connection that this one is giving away: it is frozen, and without help it would stay so. One
/// file for each, in a folder of the node, named by the socket's cookie; written before anything happens that it tells of.
struct DepartureRecord {
  enum class Stage : std::uint8_t {
    kFreezing = 1,  ///< nothing was said yet
    kOffered = 2,   ///< a COMMIT may have been applied
    kMoved = 3,
  };
  std::uint64_t cookie = 0;  ///< SO_COOKIE: never used twice
  abi::flow_key flow{};
  control::Generation generation = 0;  ///< of the flow before
  control::Generation offered = 0;     ///< of the latest offer
  control::Generation newest = 0;      ///< of the latest COMMIT
  std::uint32_t boot = 0;              ///< of the switch, when it began
  std::uint16_t target = 0;            ///< node
  std::uint16_t target_port = 0;
  std::uint16_t own_port = 0;
  Stage stage = Stage::kFreezing;
  bool has_window = false;
  std::uint32_t peer_window = 0;  ///< conn::VoiceKept
  std::uint32_t tsval = 0;        ///< likewise
  std::uint32_t snd_una = 0;
  std::uint32_t snd_nxt = 0;
  std::uint32_t rcv_nxt = 0;
  bool peer_closed = false;

  [[nodiscard]] conn::VoiceKept voice() const noexcept;
  void keep(const conn::VoiceKept& voice) noexcept;
};

class DepartureRecords {
 public:
  explicit DepartureRecords(std::filesystem::path folder) : folder_(std::move(folder)) {}

  /// In one step, whatever stood there. Throws std::system_error.
  void write(const DepartureRecord& record) const;
  void remove(std::uint64_t cookie) const noexcept;
  /// All that a former run has left; what is no record is removed.
  [[nodiscard]] std::vector<DepartureRecord> read_all() const;

 private:
  [[nodiscard]] std::filesystem::path file(std::uint64_t cookie) const;
  std::filesystem::path folder_;
};

}  // namespace tcpmig::agent
