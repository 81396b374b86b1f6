// SPDX-License-Identifier: MIT
#pragma once
#include <cstdint>
#include <optional>

#include "agent/flow.hpp"
#include "control/message.hpp"
#include "shared/tombstone.h"
#include "sys/bpf.hpp"

namespace tcpmig::agent {

/// The map `tombstones`: read as it is, changed only through the program tombstone_change (bpf/lib/tombstone.h says why).
class Tombstones {
 public:
  /// Neither descriptor is owned.
  Tombstones(int map_fd, int program_fd, std::uint32_t capacity)
      : map_fd_(map_fd), program_fd_(program_fd), capacity_(capacity) {}

  /// How many fit: that of an adopted map may be another than limits.tombstones says.
  [[nodiscard]] std::uint32_t capacity() const noexcept { return capacity_; }

  [[nodiscard]] std::optional<abi::tombstone> find(const abi::flow_key& flow) const;
  /// Whether a socket of this flow that was found *before* is of this generation, or of an older one. A claim comes before its child, so
  /// what was there before the look is not of a newer one; asked the other way round, the program could have opened the next transfer
  /// of the same four-tuple in between, and its child would be taken for its predecessor's.
  [[nodiscard]] bool is_of(const abi::flow_key& flow, control::Generation generation) const;
  [[nodiscard]] bool is_before(const abi::flow_key& flow, control::Generation generation) const;
  /// Whether its child was seen by the guard, if only on its way out.
  [[nodiscard]] bool child_seen(const abi::flow_key& flow, control::Generation generation) const;
  template <typename Visit>
  void for_each(Visit&& visit) const {
    sys::map_for_each<abi::flow_key, abi::tombstone>(map_fd_, visit);
  }

  struct Outcome {
    abi::tombstone_outcome what = abi::TOMBSTONE_ABSENT;
    abi::tombstone now{};  ///< what stands there afterwards
  };
  /// Its COMMIT has come, and we shall open it: until then whatever is left of an earlier connection must not answer. (Where the
  /// kernel resume is loaded, its program has done so before us.)
  Outcome announce(const abi::flow_key& flow, const abi::wire_header& commit);
  /// This transfer is about to be opened by us: after that nobody else opens it. `received`: bytes of a paced delivery, else 0.
  Outcome claim(const abi::flow_key& flow, const abi::wire_header& commit, std::uint32_t received);
  /// OPENING -> state.
  Outcome settle(const abi::flow_key& flow, control::Generation generation,
                 abi::tombstone_state state, std::uint8_t reason = 0, std::uint16_t detail = 0);
  /// This generation and older ones shall never be opened here, unless that has happened.
  Outcome forbid(const abi::flow_key& flow, const abi::wire_header& abort);
  /// Forgets it, if it is still of this generation.
  bool sweep(const abi::flow_key& flow, control::Generation generation);

 private:
  Outcome begin(const abi::flow_key& flow, const abi::wire_header& commit, abi::tombstone_verb verb,
                std::uint32_t received);
  Outcome change(abi::tombstone_request request);
  int map_fd_;
  int program_fd_;
  std::uint32_t capacity_;
};

}  // namespace tcpmig::agent
