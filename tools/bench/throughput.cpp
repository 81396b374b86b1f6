// SPDX-License-Identifier: MIT
// A closed loop of eight connections, replies of 1 KB, 64 KB and 1 MB, a new connection for each; and 1 KB on connections
// that are kept (wrk). How many requests a second, and how much time of a processor the dispatcher, or the proxy, spends on each.
#include <nlohmann/json.hpp>

#include "fetch.hpp"
#include "figures.hpp"
#include "generator.hpp"
#include "lab/interrupt.hpp"
#include "stage.hpp"
#include "wrk.hpp"

namespace tcpmig::bench {
namespace {

using nlohmann::json;

struct Load {
  std::string name, file;
  bool keep_alive;
};

const std::vector<Load> kLoads{{"1 KB", "1k", false},
                               {"64 KB", "64k", false},
                               {"1 MB", "1m", false},
                               {"1 KB, kept alive", "1k", true}};

constexpr unsigned kInFlight = 8;

struct Rounds {
  std::vector<double> per_second, middle_us, agent_us;
  double requests = 0, errors = 0;
};

/// wrk for connections that are kept. A new one for each request takes who can choose ports (ClientPorts).
LoadResult load_once(const Stage& stage, const Side& side, const Load& load, unsigned length) {
  if (!load.keep_alive)
    return generate({.netns = stage.lab().node("client1").netns,
                     .ports = &stage.ports(),
                     .targets = {side.at},
                     .request = closing_request("/" + load.file),
                     .in_flight = kInFlight,
                     .length = std::chrono::seconds(length),
                     .patience = std::chrono::seconds(5)});
  const WrkResult wrk = run_wrk(stage.lab(), {.node = "client1",
                                              .to = side.at,
                                              .path = "/" + load.file,
                                              .connections = kInFlight,
                                              .seconds = length});
  LoadResult result;
  result.good = static_cast<std::uint64_t>(wrk.requests);
  result.failed = static_cast<std::uint64_t>(wrk.errors);
  result.seconds = wrk.requests / wrk.per_second;
  return result;
}

void one_round(const Stage& stage, const Side& side, const Load& load, unsigned length,
               Rounds& rounds) {
  lab::throw_if_interrupted();
  const bool ours = side.name == "tcpmig";
  const auto middle = cpu_time(side.middle), agent = cpu_time(stage.agent());
  const LoadResult result = load_once(stage, side, load, length);
  const auto done = static_cast<double>(result.good);
  if (result.good == 0) throw std::runtime_error(side.name + ": no answer: " + result.failure);
  rounds.per_second.push_back(result.goodput());
  rounds.middle_us.push_back(microseconds(cpu_time(side.middle) - middle) / done);
  if (ours) rounds.agent_us.push_back(microseconds(cpu_time(stage.agent()) - agent) / done);
  rounds.requests += done;
  rounds.errors += static_cast<double>(result.failed + result.late);
}

json figures_of(const std::vector<Side>& sides, const std::vector<Rounds>& rounds) {
  json result;
  for (std::size_t i = 0; i < sides.size(); ++i) {
    json& side = result[sides[i].name];
    side = {{"per_second", spread(rounds[i].per_second)},
            {"to_direct", spread(ratios(rounds[i].per_second, rounds[0].per_second))},
            {"requests", rounds[i].requests},
            {"errors", rounds[i].errors}};
    if (i == 0) continue;
    side["middle_cpu_us"] = spread(rounds[i].middle_us);
    if (!rounds[i].agent_us.empty()) side["agent_cpu_us"] = spread(rounds[i].agent_us);
    side["tcpmig_cpu_to_this"] = spread(ratios(rounds[1].middle_us, rounds[i].middle_us));
  }
  return result;
}

}  // namespace

json throughput(const Plan& plan) {
  const unsigned count = plan.rounds(5), length = plan.quick ? 1 : 2;
  const Stage stage(plan, {.name = "bn-throughput"});
  lab::make_payload(stage.documents(), "1k", 1024);
  lab::make_payload(stage.documents(), "64k", 64 * 1024);
  lab::make_payload(stage.documents(), "1m", 1024 * 1024);
  const std::vector<Side> sides = stage.sides();
  json result = {{"in_flight", kInFlight}};
  for (const Load& load : kLoads) {
    std::vector<Rounds> rounds(sides.size());
    for (unsigned round = 0; round < count; ++round) {
      say("throughput: " + load.name + ", round " + std::to_string(round + 1) + " of " +
          std::to_string(count));
      for (std::size_t side = 0; side < sides.size(); ++side)
        one_round(stage, sides[side], load, length, rounds[side]);
    }
    result["loads"].push_back({{"load", load.name}, {"sides", figures_of(sides, rounds)}});
  }
  return result;
}

}  // namespace tcpmig::bench
