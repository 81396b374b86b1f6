// SPDX-License-Identifier: MIT
#pragma once
#include <chrono>
#include <string>
#include <vector>

#include "sys/address.hpp"

/// A bounded HTTP client: so many requests, so many at a time, every byte of every answer compared.
namespace tcpmig::lab {

struct LoadItem {
  std::string path;      ///< "/1k"
  std::string expected;  ///< the body
  unsigned weight = 1;   ///< out of the sum of all
};

struct LoadPlan {
  std::string netns;  ///< where the clients are
  sys::Endpoint target;
  std::vector<LoadItem> items;
  unsigned requests = 1000;
  unsigned parallel = 1;
  std::chrono::seconds deadline{120};  ///< of the whole run
  std::chrono::seconds each{20};       ///< of one request
};

struct LoadResult {
  unsigned completed = 0;  ///< 200, all bytes, end of file
  unsigned failed = 0;
  std::vector<std::string> failures;              ///< the first ten, in words
  std::vector<std::chrono::nanoseconds> latency;  ///< connect() to end of file, sorted
  std::chrono::nanoseconds took{};
  [[nodiscard]] std::chrono::nanoseconds percentile(double p) const;
};

/// One new connection a request ("Connection: close"), read to the end of file. Which item comes
/// when is fixed (no chance).
LoadResult run_load(const LoadPlan& plan);

}  // namespace tcpmig::lab
