// SPDX-License-Identifier: MIT
// Request heads: whole and in two pieces give the same verdict; nothing throws.
#include <cstdint>
#include <cstdlib>
#include <span>

#include "http/request_head.hpp"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace tcpmig::http;
  const auto all = std::as_bytes(std::span(data, size));
  HeadReader whole(4096);
  const Progress at_once = whole.feed(all);
  HeadReader pieces(4096);
  const std::size_t cut = size == 0 ? 0 : data[0] % size;
  Progress last = pieces.feed(all.first(cut));
  if (last == Progress::kMore) last = pieces.feed(all);
  if (at_once == Progress::kComplete && last != Progress::kComplete) std::abort();
  if (at_once == Progress::kBad && last == Progress::kComplete) std::abort();
  return 0;
}
