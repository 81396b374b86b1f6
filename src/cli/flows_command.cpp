// SPDX-License-Identifier: MIT
// tcpmig flows: the switch's table of transferred connections, in words
#include <arpa/inet.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <iostream>
#include <memory>
#include <nlohmann/json.hpp>

#include "cli/context.hpp"
#include "cli/failure.hpp"
#include "cli/options.hpp"
#include "cli/text_table.hpp"
#include "switch/sweep.hpp"
#include "switch/switch.hpp"

namespace tcpmig::cli {
namespace {

using Json = nlohmann::json;

struct Filters {
  std::string service, owner, client, state;
};

const std::vector<std::pair<std::string, std::string>> kStates{
    {"moved", "moved"}, {"open", "open"}, {"closing", "closing"}, {"dead", "dead"}};

std::string state_of(const abi::flow_value& flow, const config::Timeouts& timeouts,
                     std::uint64_t now) {
  if (steering::is_dead(flow, timeouts, now)) return "dead";
  if (steering::is_closing(flow)) return "closing";
  return flow.owner.is.spoke ? "open" : "moved";
}

std::string service_name(const config::Config& config, unsigned id) {
  const config::Service* service = config.find_service(static_cast<config::ServiceId>(id));
  return service != nullptr ? service->name : "#" + std::to_string(id);
}

std::string node_name(const config::Config& config, unsigned id) {
  const config::Node* node = config.find_node(static_cast<config::NodeId>(id));
  return id == 0 ? "-" : node != nullptr ? node->name : "#" + std::to_string(id);
}

Json to_json(const config::Config& config, const steering::FlowRow& row, std::uint64_t now) {
  const abi::flow_value& flow = row.value;
  const auto seconds = [&](std::uint64_t since) {
    return now > since ? static_cast<double>(now - since) / 1e9 : 0.0;
  };
  return {{"client", sys::Address(row.key.client).str()},
          {"client_port", ntohs(row.key.client_port)},
          {"vip", sys::Address(row.key.vip).str()},
          {"vip_port", ntohs(row.key.vip_port)},
          {"service", service_name(config, flow.service)},
          {"owner", node_name(config, static_cast<unsigned>(flow.owner.is.owner))},
          {"owner_port", static_cast<unsigned>(flow.owner.is.port)},
          {"previous", node_name(config, static_cast<unsigned>(flow.owner.is.previous))},
          {"generation", static_cast<unsigned>(flow.owner.is.generation)},
          {"spoke", flow.owner.is.spoke == 1},
          {"state", state_of(flow, config.timeouts, now)},
          {"client_rst", steering::has_client_rst(flow)},
          {"age_s", seconds(flow.committed_ns)},
          {"idle_s", seconds(flow.last_seen_ns)},
          {"packets_in", flow.packets_in},
          {"bytes_in", flow.bytes_in},
          {"packets_out", flow.packets_out},
          {"bytes_out", flow.bytes_out}};
}

bool matches(const Json& row, const Filters& filters) {
  const auto is = [&](const char* key, const std::string& wanted) {
    return wanted.empty() || row.at(key) == wanted;
  };
  return is("service", filters.service) && is("owner", filters.owner) &&
         is("client", filters.client) && is("state", filters.state);
}

/// A name that the configuration does not have is a slip, not an empty answer. Addresses are
/// compared in their normal form.
Filters checked(Filters filters, const config::Config& config) {
  const bool service =
      std::any_of(config.services.begin(), config.services.end(),
                  [&](const config::Service& s) { return s.name == filters.service; });
  if (!filters.service.empty() && !service)
    throw Failure(kNotFound, "the configuration has no service \"" + filters.service + "\"");
  if (!filters.owner.empty() && config.find_node(filters.owner) == nullptr)
    throw Failure(kNotFound, "the configuration has no node \"" + filters.owner + "\"");
  if (filters.client.empty()) return filters;
  const auto address = sys::Address::parse(filters.client);
  if (!address) throw Failure(kUsage, "--client " + filters.client + ": " + address.error());
  filters.client = address->str();
  return filters;
}

void print_table(const Json& rows) {
  std::vector<std::vector<std::string>> table{{"CLIENT", "SERVICE", "VIP", "OWNER", "GENERATION",
                                               "STATE", "AGE", "IDLE", "PACKETS IN", "BYTES IN",
                                               "PACKETS OUT", "BYTES OUT"}};
  const auto endpoint = [](const Json& row, const char* address, const char* port) {
    return sys::Endpoint{
        sys::Address::parse(row.at(address).get<std::string>()).value_or(sys::Address()),
        row.at(port).get<std::uint16_t>()}
        .str();
  };
  for (const Json& row : rows)
    table.push_back({endpoint(row, "client", "client_port"), row.at("service"),
                     endpoint(row, "vip", "vip_port"),
                     row.at("owner").get<std::string>() + ":" +
                         std::to_string(row.at("owner_port").get<unsigned>()),
                     std::to_string(row.at("generation").get<unsigned>()), row.at("state"),
                     human_seconds(row.at("age_s")), human_seconds(row.at("idle_s")),
                     std::to_string(row.at("packets_in").get<std::uint64_t>()),
                     human_bytes(row.at("bytes_in")),
                     std::to_string(row.at("packets_out").get<std::uint64_t>()),
                     human_bytes(row.at("bytes_out"))});
  std::cout << aligned(table) << rows.size() << (rows.size() == 1 ? " flow" : " flows")
            << std::endl;
}

int flows(const Globals& globals, const Filters& given) {
  const config::Config config = load_config(globals);
  const config::Switch& self = this_switch(config, globals);
  const Filters filters = checked(given, config);
  require_root("flows");
  quiet_log(globals);
  if (steering::status(config, self).at("datapath").is_null())
    throw Failure(kNotFound,
                  "switch " + self.name + " is not up here: `tcpmig switch run` starts it");
  Json rows = Json::array();
  const std::uint64_t now = steering::monotonic_ns();
  for (const steering::FlowRow& row : steering::flows(config, self, filters.state == "dead")) {
    Json json = to_json(config, row, now);
    if (matches(json, filters)) rows.push_back(std::move(json));
  }
  std::sort(rows.begin(), rows.end(),
            [](const Json& a, const Json& b) { return a.at("age_s") < b.at("age_s"); });
  if (globals.json)
    print_json(rows);
  else
    print_table(rows);
  return kDone;
}

}  // namespace

void add_flows(CLI::App& app, Globals& globals, Action& action) {
  CLI::App* noun = app.add_subcommand(
      "flows", "List the transferred connections that the switch knows, the youngest first");
  const auto filters = std::make_shared<Filters>();
  noun->add_option("--service", filters->service, "Only those of this service")->type_name("NAME");
  noun->add_option("--owner", filters->owner, "Only those that this node owns")->type_name("NODE");
  noun->add_option("--client", filters->client, "Only those of this client")->type_name("ADDRESS");
  noun->add_option_function<std::string>(
          "--state",
          [filters](const std::string& word) { filters->state = chosen("--state", word, kStates); },
          "Only those in this state: moved (the owner has not spoken yet), open, closing, "
          "dead (not swept yet; left "
          "out otherwise)")
      ->type_name("STATE");
  noun->footer(footer("sudo tcpmig flows --owner server1 --state open --json", kOfNode));
  noun->callback([&globals, &action, filters] {
    action = [&globals, filters] { return flows(globals, *filters); };
  });
}

}  // namespace tcpmig::cli
