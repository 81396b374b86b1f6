// SPDX-License-Identifier: MIT
// 100,000 migrated connections that live, from eight client addresses: what memory and what time of a processor the roles take for them; then
// up to 50,000 connections that a dispatcher waits for the request of; and how many transfers a second one core of a dispatcher does.
#include <bpf/bpf.h>

#include <fstream>
#include <nlohmann/json.hpp>

#include "crowd.hpp"
#include "fetch.hpp"
#include "figures.hpp"
#include "generator.hpp"
#include "lab/interrupt.hpp"
#include "lab/plan.hpp"
#include "lab/process.hpp"
#include "lab/role_status.hpp"
#include "one_server.hpp"
#include "sys/check.hpp"
#include "sys/netns.hpp"

namespace tcpmig::bench {
namespace {

using nlohmann::json;
using std::chrono::milliseconds;

constexpr unsigned kClients = 8;
constexpr std::size_t kLive = 100'000;
constexpr std::pair<const char*, const char*> kRoles[] = {
    {"switch", "switch1"}, {"dispatcher", "dispatcher1"}, {"agent", "server1"}};

/// Silent clients may wait as long as this takes. (Because of the section the rest is as it comes, too, and not as a lab has it.)
const char* const kTimeouts = "[timeouts]\nhead = \"300s\"\n";

/// Kernel memory of a pinned map.
std::uint64_t memory_of_map(const std::filesystem::path& pin) {
  const sys::UniqueFd map(sys::check("open " + pin.string(), bpf_obj_get(pin.c_str())));
  std::ifstream file("/proc/self/fdinfo/" + std::to_string(map.get()));
  for (std::string line; std::getline(file, line);)
    if (line.starts_with("memlock:")) return std::stoull(line.substr(8));
  return 0;
}

/// Memory of each role, and the share of a core that it takes while nothing happens.
json look(const Plan& plan, const OneServer& cluster) {
  json result;
  std::vector<std::chrono::nanoseconds> before;
  for (const auto& [role, node] : kRoles) before.push_back(cpu_time(cluster->node(node).pids));
  const milliseconds length(plan.quick ? 2'000 : 15'000);
  lab::wait_until(length, [] { return lab::interrupted(); });
  lab::throw_if_interrupted();
  std::size_t i = 0;
  for (const auto& [role, node] : kRoles) {
    const auto& pids = cluster->node(node).pids;
    result[role] = {{"resident_bytes", resident(pids)},
                    {"cpu_share", seconds(cpu_time(pids) - before[i++]) / seconds(length)}};
  }
  result["switch"]["flows_map_bytes"] =
      memory_of_map(lab::Paths(cluster->name()).pins / "switch1" / "switch" / "flows");
  return result;
}

double counter(const OneServer& cluster, const char* name) {
  return static_cast<double>(lab::role_number(*cluster, "dispatcher1", name));
}

/// New connections in a closed loop that keeps the dispatcher busy: what it does for each second of a processor.
json transfers(const Plan& plan, OneServer& cluster) {
  say("scale: transfers a second");
  std::vector<double> per_core, per_second;
  for (unsigned round = 0; round < plan.rounds(5); ++round) {
    const auto& pids = cluster->node("dispatcher1").pids;
    const auto before = cpu_time(pids);
    const double done = counter(cluster, "transferred");
    const LoadResult load = generate({.netns = cluster->node("client1").netns,
                                      .ports = &cluster.ports(),
                                      .targets = cluster.vips(),
                                      .request = closing_request("/1k"),
                                      .in_flight = 64,
                                      .length = milliseconds(plan.quick ? 1000 : 3000)});
    per_core.push_back((counter(cluster, "transferred") - done) / seconds(cpu_time(pids) - before));
    per_second.push_back(load.goodput());
  }
  return {{"per_dispatcher_core_second", spread(per_core)},
          {"requests_per_second_of_the_whole_machine", spread(per_second)}};
}

std::vector<double> fetches(OneServer& cluster, unsigned count) {
  const sys::EnterNetns inside(cluster->node("client1").netns);
  std::vector<double> times;
  for (unsigned i = 0; i < count; ++i)
    times.push_back(
        microseconds(fetch(cluster.vips().front(), closing_request("/1k"), cluster.ports()).took));
  return times;
}

json live(const Plan& plan, OneServer& cluster) {
  const std::size_t wanted = plan.quick ? 4'000 : kLive;
  json result = {{"connections", wanted}, {"before", look(plan, cluster)}};
  Crowd crowd(cluster.vips().front(), "GET /1k HTTP/1.1\r\nHost: bench\r\n\r\n");
  const auto begun = std::chrono::steady_clock::now();
  for (unsigned client = 1; client <= kClients; ++client) {
    say("scale: " + std::to_string(crowd.size()) + " connections live");
    crowd.grow(cluster->node("client" + std::to_string(client)).netns, wanted / kClients);
  }
  result["opened_per_second"] = double(wanted) / seconds(std::chrono::steady_clock::now() - begun);
  say("scale: all of them live; the roles at rest");
  result["with"] = look(plan, cluster);
  result["owned_flows_transferred"] = counter(cluster, "transferred");
  result["relayed"] = lab::role_status(*cluster, "dispatcher1").at("relayed");
  const auto again = crowd.ask_again(plan.amount(2000));
  result["next_request_p50_us"] = percentile(again, 0.5);
  const auto fresh = fetches(cluster, plan.amount(1000));
  result["new_connection_p50_us"] = percentile(fresh, 0.5);
  result["new_connection_p99_us"] = percentile(fresh, 0.99);
  return result;
}

json waiting(const Plan& plan, OneServer& cluster) {
  // As many as one process may have descriptors for.
  const std::size_t wanted =
      plan.quick
          ? 2'000
          : std::min<std::size_t>(50'000, raise_descriptor_limit() / 10 * 9) / kClients * kClients;
  const auto& pids = cluster->node("dispatcher1").pids;
  const auto empty = resident(pids);
  const auto without = fetches(cluster, plan.amount(1000));
  Crowd crowd(cluster.vips().front(), "");
  for (unsigned client = 1; client <= kClients; ++client)
    crowd.grow(cluster->node("client" + std::to_string(client)).netns, wanted / kClients);
  say("scale: " + std::to_string(crowd.size()) + " connections wait for their request");
  const bool all = lab::wait_until(milliseconds(5000), [&] {
    return counter(cluster, "waiting") >= static_cast<double>(wanted);
  });
  if (!all) throw std::runtime_error("the dispatcher does not have all that wait");
  const auto with = fetches(cluster, plan.amount(1000));
  return {{"connections", wanted},
          {"resident_bytes_each", double(resident(pids) - empty) / double(wanted)},
          {"new_connection_p50_us_without", percentile(without, 0.5)},
          {"new_connection_p50_us", percentile(with, 0.5)},
          {"new_connection_p99_us_without", percentile(without, 0.99)},
          {"new_connection_p99_us", percentile(with, 0.99)}};
}

}  // namespace

json scale(const Plan& plan) {
  OneServer cluster(plan, "bn-scale", kClients, kTimeouts + web_service(1, "203.0.113.10"),
                    static_cast<unsigned>(2 * kLive / raise_descriptor_limit() + 2));
  json result;
  result["live"] = live(plan, cluster);
  result["waiting"] = waiting(plan, cluster);
  result["transfers"] = transfers(plan, cluster);
  return result;
}

}  // namespace tcpmig::bench
