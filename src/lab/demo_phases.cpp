// SPDX-License-Identifier: MIT
#include <algorithm>
#include <fstream>
#include <iterator>

#include "lab/demo_parts.hpp"
#include "lab/load.hpp"
#include "lab/role_status.hpp"

namespace tcpmig::lab::demo_parts {
namespace {

std::string contents(const std::filesystem::path& file) {
  std::ifstream input(file, std::ios::binary);
  return {std::istreambuf_iterator<char>(input), {}};
}

LoadResult requests_to(const Stage& stage, const sys::Endpoint& target, unsigned requests) {
  const Payload& file = stage.files.front();
  return run_load({.netns = stage.lab.node("client1").netns,
                   .target = target,
                   .items = {{"/" + file.name, contents(stage.directory / "www" / file.name), 1}},
                   .requests = requests,
                   .parallel = 1});
}

/// As the dispatcher names the moments of a transfer, in their order.
constexpr std::pair<const char*, const char*> kMoments[] = {
    {"frozen", "frozen: locked and dumped"},
    {"switch_committed", "the switch has changed the owner"},
    {"server_received", "COMMIT at the server"},
    {"resumed", "resumed: the server's kernel has the connection"},
    {"confirmed", "confirmed to the dispatcher"},
};

std::string microseconds_of(const nlohmann::json& moment, const char* percentile) {
  return microseconds(std::chrono::nanoseconds(moment.at(percentile).get<std::int64_t>()));
}

void show_moments(const Stage& stage, const std::vector<unsigned>& widths) {
  const nlohmann::json phases = role_status(stage.lab, "dispatcher1").at("phases_since_head");
  const std::uint64_t count = find_number(phases, "count").value_or(0);
  stage.report.document()["phases_since_head"] = phases;
  stage.report.row({"one transfer, since the request's head was complete", "p50", "p99"}, widths);
  for (const auto& [name, text] : kMoments) {
    const nlohmann::json& moment = phases.at(name);
    const bool known = moment.is_object();
    stage.report.row({std::string("  ") + text, known ? microseconds_of(moment, "p50_ns") : "-",
                      known ? microseconds_of(moment, "p99_ns") : "-"},
                     widths);
    stage.report.check(known, std::string("there are times for \"") + name + "\"");
  }
  stage.report.line("  (" + std::to_string(count) +
                    " transfers, one clock: all machines are namespaces of this one)");
}

/// The same requests without us, to the servers' own addresses in equal shares: what round robin
/// gave them.
LoadResult requests_to_servers(const Stage& stage, std::uint16_t port, unsigned requests) {
  LoadResult all;
  const auto share = requests / static_cast<unsigned>(stage.servers.size());
  for (const StockServer& server : stage.servers) {
    const sys::Address& own = stage.lab.node(server.node()).addresses.at(0);
    const LoadResult part = requests_to(stage, {own, port}, share);
    all.latency.insert(all.latency.end(), part.latency.begin(), part.latency.end());
  }
  std::sort(all.latency.begin(), all.latency.end());
  return all;
}

}  // namespace

void show_phases(Stage& stage, unsigned requests) {
  const config::Service& service = stage.lab.config().services.at(0);
  const std::vector<unsigned> widths = {54, 10, 10};
  stage.report.title(std::to_string(requests) +
                     " requests of 1 KB, one at a time, a new connection each: microseconds");
  const LoadResult through = requests_to(stage, {service.vip4, service.port}, requests);
  const LoadResult plain = requests_to_servers(stage, service.port, requests);
  show_moments(stage, widths);
  stage.report.row({"as the client sees it, connect to last byte", "p50", "p99"}, widths);
  stage.report.row({"  through the service", microseconds(through.percentile(50)),
                    microseconds(through.percentile(99))},
                   widths);
  stage.report.row({"  straight to the same servers", microseconds(plain.percentile(50)),
                    microseconds(plain.percentile(99))},
                   widths);
  const auto as_json = [](const LoadResult& load) -> nlohmann::json {
    return {{"requests", load.latency.size()},
            {"p50_ns", load.percentile(50).count()},
            {"p90_ns", load.percentile(90).count()},
            {"p99_ns", load.percentile(99).count()}};
  };
  stage.report.document()["client_connect_to_last_byte"] = {
      {"through_the_service", as_json(through)}, {"straight", as_json(plain)}};
  stage.report.check(through.failed == 0, "no request fails",
                     std::to_string(through.failed) + " did" +
                         (through.failures.empty() ? "" : ": " + through.failures.front()));
}

}  // namespace tcpmig::lab::demo_parts
