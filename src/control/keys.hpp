// SPDX-License-Identifier: MIT
#pragma once
#include <array>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <vector>

#include "shared/switch_maps.h"

namespace tcpmig::control {

/// The cluster's secrets: current and previous, 32 bytes each.
/// File: one key a line, "ID HEX64" (ID 1..255); the first line is the current key, a second one the previous; '#' starts a comment.
/// Must not be readable by group or others.
class Secret {
 public:
  /// Throws std::runtime_error with a sentence (missing, mode too open, malformed: which line).
  static Secret load(const std::filesystem::path& file);
  /// Writes a new random one (mode 0600, exclusive: refuses to overwrite).
  static void generate(const std::filesystem::path& file);

  [[nodiscard]] std::uint8_t current_id() const noexcept;
  /// Keys node <-> switch, for both valid secrets: BLAKE2b-128 (libsodium crypto_generichash, key = secret) over "tcpmig switch" and the id.
  [[nodiscard]] abi::key_ring switch_keys(std::uint16_t node) const;
  /// Pair keys, directed: sender -> target: over "tcpmig pair", sender, target.
  [[nodiscard]] abi::key_ring pair_keys(std::uint16_t sender, std::uint16_t target) const;

 private:
  struct Entry {
    std::uint8_t id = 0;
    std::array<unsigned char, 32> bytes{};
  };
  std::vector<Entry> entries_;
};

/// SipHash-2-4 over any number of pieces, as one message (bpf/lib/siphash.h is the same algorithm for BPF).
std::uint64_t siphash(const abi::siphash_key& key, std::span<const std::byte> first,
                      std::span<const std::byte> second = {});

}  // namespace tcpmig::control
