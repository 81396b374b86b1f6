// SPDX-License-Identifier: MIT
// Arrivals at a fixed rate, 10 % to 150 % of what each side can do, replies of 1 KB, a new connection for each: how many are answered within
// a second, and how long that takes from the moment that they were due. Beyond its capacity a server must go on serving what it can.

#include <nlohmann/json.hpp>

#include "fetch.hpp"
#include "figures.hpp"
#include "generator.hpp"
#include "lab/interrupt.hpp"
#include "stage.hpp"

namespace tcpmig::bench {
namespace {

using nlohmann::json;
using std::chrono::milliseconds;

constexpr double kShares[] = {0.1, 0.25, 0.5, 0.75, 1.0, 1.25, 1.5};

/// The clients have a core of their own: those who get no answer shall not take away the time of the server, as they would not from another
/// machine. What is done for their packets on the way, up to a socket, is done on their core (softirq).
Placement placement() {
  if (all_processors().size() < 2)
    return {"one core", "everything on core 0, clients too", {0}, {0}, {0}};
  return {"clients apart", "clients on core 0, everything else on core 1", {0}, {1}, {1}};
}

double capacity(const Plan& plan, const Stage& stage, const Side& side) {
  std::vector<double> rounds;
  for (unsigned round = 0; round < plan.rounds(3); ++round)
    rounds.push_back(generate({.netns = stage.lab().node("client1").netns,
                               .ports = &stage.ports(),
                               .targets = {side.at},
                               .request = closing_request("/1k"),
                               .in_flight = 32,
                               .length = milliseconds(plan.quick ? 1000 : 2000)})
                         .goodput());
  return median(rounds);
}

struct Rounds {
  std::vector<double> goodput, p50, p99, lag;
  double late = 0, failed = 0, begun = 0;
  std::string failure;
};

void one_round(const Plan& plan, const Stage& stage, const Side& side, double rate,
               Rounds& rounds) {
  const LoadResult load =
      generate({.netns = stage.lab().node("client1").netns,
                .ports = &stage.ports(),
                .targets = {side.at},
                .request = closing_request("/1k"),
                .rate = rate,
                .in_flight = static_cast<unsigned>(raise_descriptor_limit() / 4 * 3),
                .length = milliseconds(plan.quick ? 1000 : 2500)});
  rounds.goodput.push_back(load.goodput());
  rounds.p50.push_back(percentile(load.latency_us, 0.5));
  rounds.p99.push_back(percentile(load.latency_us, 0.99));
  rounds.lag.push_back(load.lag_us);
  rounds.begun += static_cast<double>(load.begun);
  rounds.late += static_cast<double>(load.late);
  rounds.failed += static_cast<double>(load.failed);
  if (rounds.failure.empty()) rounds.failure = load.failure;
}

json figures_of(const Rounds& rounds, double share, double rate) {
  return {{"share", share},
          {"rate", rate},
          {"goodput", spread(rounds.goodput)},
          {"p50_us", spread(rounds.p50)},
          {"p99_us", spread(rounds.p99)},
          {"lag_us", spread(rounds.lag)},
          {"begun", rounds.begun},
          {"late", rounds.late},
          {"failed", rounds.failed},
          {"failure", rounds.failure}};
}

/// What the side still does at 1.5 times its capacity, of the most that it did at any rate.
double kept_at_the_end(const json& points) {
  double most = 0;
  for (const json& point : points) most = std::max(most, point["goodput"]["median"].get<double>());
  return points.back()["goodput"]["median"].get<double>() / most;
}

}  // namespace

json open_loop(const Plan& plan) {
  const Stage stage(plan, {.name = "bn-open"});
  lab::make_payload(stage.documents(), "1k", 1024);
  const Placement where = placement();
  const Placed placed(stage, where);
  std::vector<Side> sides;
  for (Side& side : stage.sides())
    if (side.name != "haproxy" && side.name != "nginx") sides.push_back(std::move(side));
  json result{{"placement", where.what}};
  std::vector<double> capacities;
  for (const Side& side : sides) {
    say("open loop: capacity, " + side.name);
    capacities.push_back(capacity(plan, stage, side));
    result["sides"][side.name]["capacity"] = capacities.back();
  }
  for (const double share : kShares) {
    say("open loop: " + std::to_string(std::lround(share * 100)) + " % of capacity");
    std::vector<Rounds> rounds(sides.size());
    for (unsigned round = 0; round < plan.rounds(3); ++round)
      for (std::size_t side = 0; side < sides.size(); ++side) {
        lab::throw_if_interrupted();
        one_round(plan, stage, sides[side], share * capacities[side], rounds[side]);
      }
    for (std::size_t side = 0; side < sides.size(); ++side)
      result["sides"][sides[side].name]["points"].push_back(
          figures_of(rounds[side], share, share * capacities[side]));
  }
  for (const Side& side : sides)
    result["sides"][side.name]["kept_at_1.5"] =
        kept_at_the_end(result["sides"][side.name]["points"]);
  return result;
}

}  // namespace tcpmig::bench
