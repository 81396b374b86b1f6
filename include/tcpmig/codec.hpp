// SPDX-License-Identifier: MIT
#pragma once
#include <cstddef>
#include <expected>
#include <span>
#include <string>
#include <vector>

#include <tcpmig/snapshot.hpp>

namespace tcpmig {

/// Limits of the encoded form, checked before anything is allocated.
inline constexpr std::size_t kMaxQueueBytes = 64U << 20;  ///< each of received, sent, unsent

enum class DecodeError {
  kTruncated,  ///< ends before it should
  kMagic,      ///< not a snapshot
  kVersion,    ///< of a version this library does not read
  kField,      ///< a field out of range (scale > 14, unknown flag, family, ..)
  kTooLarge,   ///< a queue longer than kMaxQueueBytes
  kTrailing,   ///< bytes after the end
};
std::string to_string(DecodeError error);

/// Versioned, self-contained, big-endian. Layout in docs/protocol.md ("Snapshot file"). Throws std::invalid_argument on a
/// snapshot that contradicts itself: ends of different families, a scale above 14, a queue above the limit, `sent` not [snd_una, snd_nxt).
std::vector<std::byte> encode(const Snapshot& snapshot);
/// Never throws on any bytes (except std::bad_alloc within the limits).
std::expected<Snapshot, DecodeError> decode(std::span<const std::byte> bytes);

}  // namespace tcpmig
