// SPDX-License-Identifier: MIT
#include "figures.hpp"

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>

namespace tcpmig::bench {

double percentile(std::vector<double> values, double share) {
  if (values.empty()) return 0;
  const auto place =
      static_cast<std::size_t>(std::llround(share * static_cast<double>(values.size() - 1)));
  std::ranges::nth_element(values, values.begin() + static_cast<std::ptrdiff_t>(place));
  return values[place];
}

double median(std::vector<double> values) { return percentile(std::move(values), 0.5); }

nlohmann::json spread(const std::vector<double>& rounds) {
  if (rounds.empty()) return nullptr;
  const auto [low, high] = std::ranges::minmax(rounds);
  return {{"median", median(rounds)}, {"low", low}, {"high", high}, {"rounds", rounds}};
}

std::vector<double> ratios(const std::vector<double>& values, const std::vector<double>& base) {
  std::vector<double> result;
  for (std::size_t i = 0; i < std::min(values.size(), base.size()); ++i)
    if (base[i] != 0) result.push_back(values[i] / base[i]);
  return result;
}

std::vector<double> differences(const std::vector<double>& values,
                                const std::vector<double>& base) {
  std::vector<double> result;
  for (std::size_t i = 0; i < std::min(values.size(), base.size()); ++i)
    result.push_back(values[i] - base[i]);
  return result;
}

}  // namespace tcpmig::bench
