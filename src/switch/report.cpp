// SPDX-License-Identifier: MIT
// What the pinned maps say, for `status` and `flows`. Works while no process of the role runs.
#include <linux/bpf.h>

#include <nlohmann/json.hpp>

#include "shared/switch_maps.h"
#include "switch/attachments.hpp"
#include "switch/datapath.hpp"
#include "switch/health.hpp"
#include "switch/host.hpp"
#include "switch/programs.hpp"
#include "switch/steering.hpp"
#include "switch/sweep.hpp"
#include "switch/switch.hpp"
#include "sys/bpf.hpp"

namespace tcpmig::steering {
namespace {

using Json = nlohmann::json;

struct CounterName {
  std::uint32_t index;
  const char* name;
};
constexpr CounterName kCounters[] = {
#define X(number, json, text) {abi::number, json},
    SWITCH_COUNTERS(X)
#undef X
};

Json counters(int map_fd) {
  Json json = Json::object();
  for (const CounterName& counter : kCounters) {
    std::uint64_t sum = 0;
    for (const std::uint64_t value : sys::map_lookup_percpu<std::uint64_t>(map_fd, counter.index))
      sum += value;
    json[counter.name] = sum;
  }
  return json;
}

void put_traffic(Json& json, int map_fd, std::uint32_t index) {
  abi::traffic sum{};
  for (const abi::traffic& one : sys::map_lookup_percpu<abi::traffic>(map_fd, index)) {
    sum.packets_in += one.packets_in;
    sum.bytes_in += one.bytes_in;
    sum.packets_out += one.packets_out;
    sum.bytes_out += one.bytes_out;
  }
  json["packets_in"] = sum.packets_in;
  json["bytes_in"] = sum.bytes_in;
  json["packets_out"] = sum.packets_out;
  json["bytes_out"] = sum.bytes_out;
}

void put_address(Json& json, const char* key, const sys::Address& address) {
  if (address.is_set()) json[key] = address.str();
}

/// Milliseconds since the node's last heartbeat; null = none has come.
Json heard_ms(int liveness_fd, std::uint32_t id, std::uint64_t now) {
  const auto node = sys::map_lookup<abi::node_liveness>(liveness_fd, id);
  if (!node || node->heard_ns == 0) return nullptr;
  return node->heard_ns < now ? (now - node->heard_ns) / 1'000'000 : 0;
}

Json nodes(const config::Config& config, const Host& host, int nodes_fd, int traffic_fd,
           int liveness_fd) {
  Json list = Json::array();
  const std::uint64_t now = monotonic_ns();
  for (const config::Node& node : config.nodes) {
    Json json{{"name", node.name},
              {"id", node.id},
              {"role", node.role == config::Role::kDispatcher ? "dispatcher" : "server"}};
    put_address(json, "address4", node.address4);
    put_address(json, "address6", node.address6);
    const auto entry = sys::map_lookup<abi::node_entry>(nodes_fd, std::uint32_t{node.id});
    json["interface"] = entry ? host.name(static_cast<int>(entry->ifindex)) : "";
    const auto liveness = sys::map_lookup<abi::node_liveness>(liveness_fd, std::uint32_t{node.id});
    json["health"] =
        to_string(health_of(liveness.value_or(abi::node_liveness{}), now, config.timeouts.health));
    json["heard_ms"] = heard_ms(liveness_fd, node.id, now);
    put_traffic(json, traffic_fd, node.id);
    list.push_back(std::move(json));
  }
  return list;
}

Json services(const config::Config& config, int traffic_fd) {
  Json list = Json::array();
  for (const config::Service& service : config.services) {
    Json json{{"name", service.name}, {"id", service.id}, {"port", service.port}};
    put_address(json, "vip4", service.vip4);
    put_address(json, "vip6", service.vip6);
    put_traffic(json, traffic_fd, service.id);
    list.push_back(std::move(json));
  }
  return list;
}

Json flow_totals(int map_fd, const config::Timeouts& timeouts) {
  std::uint64_t entries = 0, live = 0, closing = 0;
  const std::uint64_t now = monotonic_ns();
  sys::map_for_each<abi::flow_key, abi::flow_value>(
      map_fd, [&](const abi::flow_key&, const abi::flow_value& flow) {
        ++entries;
        if (is_dead(flow, timeouts, now)) return;
        ++(is_closing(flow) ? closing : live);
      });
  return {{"entries", entries}, {"live", live}, {"closing", closing}};
}

/// The programs that are pinned, and where they hang.
struct Attached {
  std::string datapath;
  Json list = Json::array();
  bool everywhere = true;
};
Attached attached(const config::Switch& self, const Host& host, const sys::PinDirectory& pins) {
  Attached result;
  const Attachments attachments(pins);
  for (const auto datapath : {config::Datapath::kTc, config::Datapath::kXdp}) {
    if (!pins.open(program_pin(datapath, "clients"))) continue;
    result.datapath = to_string(datapath);
    const auto look = [&](const std::vector<std::string>& names, const std::string& side) {
      const auto program = pins.open(program_pin(datapath, side));
      for (const std::string& name : names) {
        const int ifindex = host.ifindex(name);
        const bool hangs = program && ifindex != 0 &&
                           attachments.is_attached(datapath, name, ifindex, program->get());
        result.everywhere = result.everywhere && hangs;
        if (hangs)
          result.list.push_back(
              {{"interface", name}, {"side", side}, {"hook", attachments.how(datapath, name)}});
      }
    };
    look(self.clients, "clients");
    look(self.nodes, "nodes");
  }
  result.everywhere = result.everywhere && !result.datapath.empty();
  return result;
}

sys::UniqueFd open_map(const sys::PinDirectory& pins, const std::string& name) {
  auto map = pins.open(name);
  if (!map)
    throw std::runtime_error("the pinned map " + name + " is missing: run `tcpmig switch up`");
  return std::move(*map);
}

}  // namespace

nlohmann::json status(const config::Config& config, const config::Switch& self) {
  Json json{{"role", "switch"}, {"node", self.name},   {"pid", nullptr},           {"ready", false},
            {"up", false},      {"datapath", nullptr}, {"attached", Json::array()}};
  if (!is_up(config, self)) return json;
  const sys::PinDirectory pins(config.paths(self.name).pins("switch"));
  sys::Netlink netlink;
  const Host host(netlink, self);
  const Attached programs = attached(self, host, pins);
  json["up"] = programs.everywhere;
  if (!programs.datapath.empty()) json["datapath"] = programs.datapath;
  json["attached"] = programs.list;
  json["counters"] = counters(open_map(pins, "counters").get());
  json["nodes"] = nodes(config, host, open_map(pins, "nodes").get(),
                        open_map(pins, "node_traffic").get(), open_map(pins, "liveness").get());
  json["services"] = services(config, open_map(pins, "service_traffic").get());
  const auto settings =
      sys::map_lookup<abi::switch_settings>(open_map(pins, "settings").get(), std::uint32_t{0});
  json["recovering"] = settings && monotonic_ns() < settings->recovering_until_ns;
  const sys::UniqueFd flow_map = open_map(pins, "flows");
  json["flows"] = flow_totals(flow_map.get(), config.timeouts);
  json["capacity"] = sys::map_info(flow_map.get()).max_entries;
  return json;
}

std::vector<FlowRow> flows(const config::Config& config, const config::Switch& self,
                           bool with_dead) {
  std::vector<FlowRow> rows;
  if (!is_up(config, self)) return rows;
  const sys::PinDirectory pins(config.paths(self.name).pins("switch"));
  const std::uint64_t now = monotonic_ns();
  sys::map_for_each<abi::flow_key, abi::flow_value>(
      open_map(pins, "flows").get(), [&](const abi::flow_key& key, const abi::flow_value& flow) {
        if (with_dead || !is_dead(flow, config.timeouts, now)) rows.push_back({key, flow});
      });
  return rows;
}

}  // namespace tcpmig::steering
