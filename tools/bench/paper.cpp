// SPDX-License-Identifier: MIT
// The figure of the paper that this project follows (Takahashi and others, COMSWARE 2006): mini_httpd, and one client that fetches files
// of 1 KB to 100 MB as wget does, one after the other. What each way to the server adds to the direct one, by the size of the reply.
#include <nlohmann/json.hpp>

#include "fetch.hpp"
#include "figures.hpp"
#include "lab/interrupt.hpp"
#include "stage.hpp"
#include "sys/netns.hpp"

namespace tcpmig::bench {
namespace {

using nlohmann::json;

struct Size {
  std::string name;
  std::size_t bytes;
  unsigned fetches;  ///< in each round
};

const std::vector<Size> kSizes{
    {"1 KB", 1024, 60},        {"10 KB", 10 * 1024, 60},       {"100 KB", 100 * 1024, 60},
    {"1 MB", 1024 * 1024, 40}, {"10 MB", 10 * 1024 * 1024, 8}, {"100 MB", 100 * 1024 * 1024, 2}};

std::string path_of(const Size& size) { return "/" + std::to_string(size.bytes); }

/// Sides take turns with each fetch.
std::vector<double> one_round(const Stage& stage, const std::vector<Side>& sides, const Size& size,
                              unsigned fetches) {
  const std::string request = closing_request(path_of(size));
  std::vector<std::vector<double>> times(sides.size());
  for (unsigned i = 0; i < fetches; ++i)
    for (std::size_t side = 0; side < sides.size(); ++side) {
      lab::throw_if_interrupted();
      times[side].push_back(microseconds(fetch(sides[side].at, request, stage.ports()).took));
    }
  std::vector<double> medians;
  for (auto& of_side : times) medians.push_back(median(std::move(of_side)));
  return medians;
}

json measure(const Plan& plan, const Stage& stage, const std::vector<Side>& sides,
             const Size& size) {
  say("paper: replies of " + size.name);
  std::vector<std::vector<double>> rounds(sides.size());
  for (unsigned round = 0; round < plan.rounds(5); ++round) {
    const auto medians =
        one_round(stage, sides, size, size.fetches == 2 ? 2 : plan.amount(size.fetches));
    for (std::size_t side = 0; side < sides.size(); ++side) rounds[side].push_back(medians[side]);
  }
  json result = {{"size", size.name}, {"bytes", size.bytes}};
  for (std::size_t side = 0; side < sides.size(); ++side)
    result["sides"][sides[side].name] = {{"us", spread(rounds[side])},
                                         {"added_us", spread(differences(rounds[side], rounds[0]))},
                                         {"to_direct", spread(ratios(rounds[side], rounds[0]))}};
  return result;
}

}  // namespace

json paper(const Plan& plan) {
  const Stage stage(plan, {.name = "bn-paper"});
  for (const Size& size : kSizes)
    lab::make_payload(stage.documents(), path_of(size).substr(1), size.bytes);
  const std::vector<Side> sides = stage.mini_httpd_sides();
  json result;
  const sys::EnterNetns inside(stage.lab().node("client1").netns);
  one_round(stage, sides, kSizes[0], 20);
  for (const Size& size : kSizes) result["sizes"].push_back(measure(plan, stage, sides, size));
  return result;
}

}  // namespace tcpmig::bench
