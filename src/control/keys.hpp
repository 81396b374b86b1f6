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

  /// A change of key while everything runs, in three steps; after each, the file goes to all machines and every role is started
  /// again, one after another. Two neighbouring steps always understand each other. Each step replaces the file by rename; comments
  /// stay. All throw sys::WrongSetup when it is not their turn.
  static std::uint8_t add_key(
      const std::filesystem::path& file);  ///< a new second key: accepted, not used. Its id
  static std::uint8_t use_second(
      const std::filesystem::path& file);  ///< the second becomes the current one. Its id
  static std::uint8_t drop_second(
      const std::filesystem::path& file);  ///< only the current one is valid. The id that went

  [[nodiscard]] std::uint8_t current_id() const noexcept;
  /// Keys node <-> switch, for both valid secrets: BLAKE2b-128 (libsodium crypto_generichash, key = secret) over "tcpmig switch" and the id.
  [[nodiscard]] abi::key_ring switch_keys(std::uint16_t node) const;
  /// Pair keys, directed: sender -> target: over "tcpmig pair", sender, target.
  [[nodiscard]] abi::key_ring pair_keys(std::uint16_t sender, std::uint16_t target) const;
  /// Key of the switch's choice of a dispatcher: over "tcpmig maglev". The same on every switch.
  [[nodiscard]] abi::siphash_key maglev_key() const;

 private:
  struct Entry {
    std::uint8_t id = 0;
    std::array<unsigned char, 32> bytes{};
  };
  void save(const std::filesystem::path& file) const;
  std::vector<Entry> entries_;
};

/// SipHash-2-4 over any number of pieces, as one message (bpf/lib/siphash.h is the same algorithm for BPF).
std::uint64_t siphash(const abi::siphash_key& key, std::span<const std::byte> first,
                      std::span<const std::byte> second = {});

}  // namespace tcpmig::control
