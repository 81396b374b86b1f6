// SPDX-License-Identifier: MIT
// Any bytes: decode() answers, and what it takes is exactly what encode() makes of it.
#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <span>

#include <tcpmig/codec.hpp>

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const auto bytes = std::as_bytes(std::span(data, size));
  const auto snapshot = tcpmig::decode(bytes);
  if (!snapshot) return 0;
  const auto again = tcpmig::encode(*snapshot);
  if (!std::ranges::equal(again, bytes)) std::abort();
  if (tcpmig::decode(again) != snapshot) std::abort();
  return 0;
}
