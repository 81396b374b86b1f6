// SPDX-License-Identifier: MIT
#pragma once
#include <filesystem>
#include <string>
#include <vector>

#include <nlohmann/json_fwd.hpp>

/// What `./dev bench` can measure. Each benchmark is one file, which says at its top what it does.
namespace tcpmig::bench {

struct Plan {
  std::filesystem::path program;  ///< tcpmig
  bool quick = false;             ///< does it work? Figures of few and short rounds mean little.
  [[nodiscard]] unsigned rounds(unsigned full) const { return quick ? 2 : full; }
  /// Of anything that is repeated or takes its time.
  [[nodiscard]] unsigned amount(unsigned full) const { return quick ? (full + 9) / 10 : full; }
};

struct Benchmark {
  std::string name;
  std::string what;
  nlohmann::json (*run)(const Plan&);
};

/// In the order in which the whole suite runs.
const std::vector<Benchmark>& benchmarks();

nlohmann::json latency(const Plan&);
nlohmann::json throughput(const Plan&);
nlohmann::json paper(const Plan&);
nlohmann::json switch_packets(const Plan&);
nlohmann::json open_loop(const Plan&);
nlohmann::json resume(const Plan&);
nlohmann::json addresses(const Plan&);
nlohmann::json scale(const Plan&);

/// One line to stderr: what is under way.
void say(const std::string& text);

/// Commit, kernel, processor, versions of all that takes part.
nlohmann::json machine(const Plan& plan);

}  // namespace tcpmig::bench
