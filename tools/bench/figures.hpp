// SPDX-License-Identifier: MIT
#pragma once
#include <chrono>
#include <vector>

#include <nlohmann/json_fwd.hpp>

/// What becomes of many measured values.
namespace tcpmig::bench {

double median(std::vector<double> values);
/// The value below which `share` (0..1) of them lie; 0 of none.
double percentile(std::vector<double> values, double share);
/// {"median": .., "low": .., "high": .., "rounds": [..]}: low and high are the lowest and the highest round.
nlohmann::json spread(const std::vector<double>& rounds);
/// What each round of `values` is of the same round of `base`.
std::vector<double> ratios(const std::vector<double>& values, const std::vector<double>& base);
std::vector<double> differences(const std::vector<double>& values, const std::vector<double>& base);

inline double microseconds(std::chrono::nanoseconds time) {
  return std::chrono::duration<double, std::micro>(time).count();
}
inline double seconds(std::chrono::nanoseconds time) {
  return std::chrono::duration<double>(time).count();
}

}  // namespace tcpmig::bench
