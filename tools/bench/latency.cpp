// SPDX-License-Identifier: MIT
// From connect() to the last byte of 1 KB, one request at a time, a new connection each; and what a transfer is made of, by
// tcpmig's own stamps and by the clock of a server that looks when its accept() returns.
//
// Three placements: as the scheduler likes; everything on one core; the client and the dispatcher (or the proxy) on one core, the
// server and its agent on another.
#include <nlohmann/json.hpp>

#include "acceptor.hpp"
#include "fetch.hpp"
#include "figures.hpp"
#include "lab/interrupt.hpp"
#include "lab/process.hpp"
#include "stage.hpp"
#include "stamps.hpp"
#include "sys/netns.hpp"

namespace tcpmig::bench {
namespace {

using nlohmann::json;
using std::chrono::milliseconds;

constexpr std::size_t kReply = 1024;
/// Sides take turns this often, so that what disturbs the machine disturbs all of them.
constexpr unsigned kTurn = 50;

std::vector<Placement> placements() {
  const std::vector<unsigned> all = all_processors();
  std::vector<Placement> result{{"free", "as the scheduler likes", all, all, all},
                                {"one core", "everything on core 0", {0}, {0}, {0}}};
  if (all.size() > 1)
    result.push_back(
        {"two cores", "client and dispatcher or proxy on core 0, server on core 1", {0}, {0}, {1}});
  return result;
}

/// microseconds[side]: of one round.
std::vector<std::vector<double>> one_round(const Stage& stage, const std::vector<Side>& sides,
                                           unsigned requests) {
  const std::string request = closing_request("/1k");
  std::vector<std::vector<double>> times(sides.size());
  const sys::EnterNetns inside(stage.lab().node("client1").netns);
  for (unsigned done = 0; done < requests; done += kTurn)
    for (std::size_t side = 0; side < sides.size(); ++side) {
      lab::throw_if_interrupted();
      for (unsigned i = 0; i < kTurn; ++i)
        times[side].push_back(microseconds(fetch(sides[side].at, request, stage.ports()).took));
    }
  return times;
}

/// What one side came to: percentiles of each round, and of all requests together where rounds are too short for them.
json side_figures(const std::vector<std::vector<double>>& rounds) {
  std::vector<double> p50, p90, p99, all;
  for (const std::vector<double>& times : rounds) {
    p50.push_back(percentile(times, 0.5));
    p90.push_back(percentile(times, 0.9));
    p99.push_back(percentile(times, 0.99));
    all.insert(all.end(), times.begin(), times.end());
  }
  return {{"p50_us", spread(p50)},
          {"p90_us", spread(p90)},
          {"p99_us", spread(p99)},
          {"p999_us", percentile(all, 0.999)},
          {"requests", all.size()}};
}

json added(const json& side, const json& direct) {
  const auto of = [](const json& figures) {
    return figures.at("p50_us").at("rounds").get<std::vector<double>>();
  };
  return spread(differences(of(side), of(direct)));
}

json measure(const Plan& plan, const Stage& stage, const Placement& placement) {
  say("latency: " + placement.name + ": " + placement.what);
  const std::vector<Side> sides = stage.sides();
  const Placed placed(stage, placement);
  one_round(stage, sides,
            2 * kTurn);  // warms up caches, branches, and the proxies' kept connections
  std::vector<std::vector<std::vector<double>>> of_side(sides.size());
  for (unsigned round = 0; round < plan.rounds(5); ++round) {
    auto times = one_round(stage, sides, plan.amount(2000));
    for (std::size_t side = 0; side < sides.size(); ++side)
      of_side[side].push_back(std::move(times[side]));
  }
  json result;
  for (std::size_t side = 0; side < sides.size(); ++side)
    result[sides[side].name] = side_figures(of_side[side]);
  for (const Side& side : sides)
    result[side.name]["added_p50_us"] = added(result[side.name], result["direct"]);
  const auto addition = [&](const char* side) {
    return result[side]["added_p50_us"]["rounds"].get<std::vector<double>>();
  };
  for (const char* peer : {"haproxy", "haproxy-keep", "nginx", "nginx-keep"})
    result["tcpmig"]["addition_to"][peer] = spread(ratios(addition("tcpmig"), addition(peer)));
  return result;
}

// ---- the phases of a transfer ----

/// A request of 400 bytes, as HA/TCP and Capybara have measured with.
std::string request_of_400_bytes() {
  std::string request = "GET /1k HTTP/1.1\r\nHost: bench\r\nConnection: close\r\nX-Fill: ";
  request.append(400 - 4 - request.size(), 'x');
  return request + "\r\n\r\n";
}

json measure_phases(const Plan& plan, const Stage& stage, const Placement& placement,
                    bool spinning) {
  say("latency: phases of a transfer, " + placement.name +
      (spinning ? ", a server that spins" : ""));
  const Placed placed(stage, placement);
  Acceptor acceptor(stage.lab().node("server1").netns, kOwnPort, kReply, spinning,
                    placement.servers);
  const std::string request = request_of_400_bytes();
  Phases phases;
  for (unsigned done = 0; done < plan.amount(1200); done += kKeptStamps) {
    lab::throw_if_interrupted();
    {
      const sys::EnterNetns inside(stage.lab().node("client1").netns);
      for (unsigned i = 0; i < kKeptStamps; ++i) fetch(stage.own_service(), request, stage.ports());
    }
    lab::wait_until(milliseconds(100), [] { return false; });  // the last ones are confirmed
    take_stamps(stage.lab(), acceptor.take(), phases);
  }
  json result;
  for (const auto& [stamp, name] : kMoments)
    result[name] = {{"p50_us", percentile(phases[name], 0.5)},
                    {"p90_us", percentile(phases[name], 0.9)},
                    {"p99_us", percentile(phases[name], 0.99)},
                    {"transfers", phases[name].size()}};
  return result;
}

}  // namespace

json latency(const Plan& plan) {
  const Stage stage(plan, {.name = "bn-latency"});
  lab::make_payload(stage.documents(), "1k", kReply);
  json result;
  for (const Placement& placement : placements()) {
    json& figures = result["placements"][placement.name];
    figures["what"] = placement.what;
    figures["sides"] = measure(plan, stage, placement);
    figures["phases"] = measure_phases(plan, stage, placement, false);
    if (placement.clients != placement.servers)
      figures["phases_spinning"] = measure_phases(plan, stage, placement, true);
  }
  return result;
}

}  // namespace tcpmig::bench
