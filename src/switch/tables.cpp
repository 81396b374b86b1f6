// SPDX-License-Identifier: MIT
#include "switch/tables.hpp"

#include <sys/random.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <system_error>

#include "control/message.hpp"
#include "shared/flow.h"
#include "switch/maglev.hpp"
#include "switch/sweep.hpp"
#include "sys/bpf.hpp"
#include "sys/check.hpp"

namespace tcpmig::steering {
namespace {

template <typename T>
bool same(const T& a, const T& b) {
  return std::memcmp(&a, &b, sizeof(T)) == 0;  // the ABI's structs have no holes
}

/// Touches nothing that is right: programs read it meanwhile.
template <typename Key, typename Value>
void put(int map_fd, const Key& key, const Value& value) {
  const auto there = sys::map_lookup<Value>(map_fd, key);
  if (!there || !same(*there, value)) sys::map_update(map_fd, key, value);
}

template <typename Key, typename Value>
void reconcile(int map_fd, const std::vector<std::pair<Key, Value>>& wanted) {
  for (const auto& [key, value] : wanted) put(map_fd, key, value);
  std::vector<Key> stale;
  sys::map_for_each<Key, Value>(map_fd, [&](const Key& key, const Value&) {
    if (std::none_of(wanted.begin(), wanted.end(),
                     [&](const auto& entry) { return same(entry.first, key); }))
      stale.push_back(key);
  });
  for (const Key& key : stale) sys::map_delete(map_fd, key);
}

/// What is not wanted becomes all zero.
template <typename Value>
void reconcile_array(int map_fd, const std::map<std::uint32_t, Value>& wanted) {
  std::vector<std::pair<std::uint32_t, Value>> changes;
  sys::map_for_each<std::uint32_t, Value>(map_fd, [&](std::uint32_t index, const Value& there) {
    const auto found = wanted.find(index);
    const Value value = found == wanted.end() ? Value{} : found->second;
    if (!same(there, value)) changes.emplace_back(index, value);
  });
  for (const auto& [index, value] : changes) sys::map_update(map_fd, index, value);
}

std::uint32_t random_number() {
  std::uint32_t number = 0;
  while (number == 0) sys::check("getrandom", ::getrandom(&number, sizeof number, 0));
  return number;
}

std::uint16_t big_endian(std::uint16_t value) { return htons(value); }

void want_service(Wanted& all, const config::Service& service) {
  abi::service_entry& entry = all.services[service.id];
  entry.vip4 = service.vip4.raw();
  entry.vip6 = service.vip6.raw();
  entry.port = big_endian(service.port);
  entry.used = 1;
  for (const sys::Address& vip : {service.vip4, service.vip6}) {
    if (!vip.is_set()) continue;
    all.vips.push_back({{vip.raw(), entry.port, {}}, service.id});
    all.vips.push_back({{vip.raw(), 0, {}}, 0});  // the VIP itself, for what meets no service
  }
}

abi::node_entry node_entry(const config::Node& node, const control::Secret& secret,
                           std::uint32_t ifindex) {
  abi::node_entry entry{};
  entry.address4 = node.address4.raw();
  entry.address6 = node.address6.raw();
  entry.keys = secret.switch_keys(node.id);
  entry.ifindex = ifindex;
  entry.role = node.role == config::Role::kDispatcher ? abi::NODE_DISPATCHER : abi::NODE_SERVER;
  return entry;
}

void fill_maglev(int map_fd, const std::vector<std::uint32_t>& table) {
  std::map<std::uint32_t, std::uint32_t> slots;
  for (std::size_t i = 0; i < table.size(); ++i) slots[static_cast<std::uint32_t>(i)] = table[i];
  reconcile_array(map_fd, slots);
}

}  // namespace

Wanted wanted(const config::Config& config, const control::Secret& secret,
              const std::function<std::uint32_t(const config::Node&)>& ifindex_of,
              const std::vector<sys::Address>& own_addresses) {
  Wanted all;
  for (const config::Service& service : config.services) want_service(all, service);
  std::vector<std::uint32_t> dispatchers;
  for (const config::Node& node : config.nodes) {
    all.nodes[node.id] = node_entry(node, secret, ifindex_of(node));
    if (node.role == config::Role::kDispatcher) dispatchers.push_back(node.id);
    for (const sys::Address& address : {node.address4, node.address6})
      if (address.is_set()) all.node_addresses.emplace_back(address.raw(), node.id);
  }
  for (const sys::Address& address : own_addresses)
    all.own_addresses.emplace_back(address.raw(), 1);
  all.maglev = maglev_table(dispatchers);
  return all;
}

abi::switch_settings wanted_settings(const config::Config& config, const control::Secret& secret,
                                     const abi::switch_settings& before, bool fresh) {
  abi::switch_settings settings{};
  settings.closing_ns = nanoseconds(config.timeouts.closing);
  settings.idle_ns = nanoseconds(config.timeouts.idle);
  settings.transfer_ms = static_cast<std::uint32_t>(config.timeouts.transfer.count());
  settings.boot = fresh ? random_number() : before.boot;
  settings.recovering_until_ns =
      fresh ? monotonic_ns() + nanoseconds(config.timeouts.recovery) : before.recovering_until_ns;
  settings.hash = fresh ? secret.maglev_key() : before.hash;
  const abi::ip_address vpa4 = config.vpa4.address.raw(), vpa6 = config.vpa6.address.raw();
  std::copy_n(vpa4.bytes + 12, 4, settings.vpa4_prefix);
  std::copy_n(vpa6.bytes, 16, settings.vpa6_prefix);
  settings.vpa4_prefix_length = static_cast<std::uint8_t>(config.vpa4.length);
  settings.control_port = big_endian(config.control_port);
  return settings;
}

void apply_choice(Wanted& wanted, const DispatcherChoice& choice) {
  for (auto& [id, node] : wanted.nodes) node.down = choice.down.contains(id) ? 1 : 0;
  wanted.maglev = maglev_table({choice.chosen.begin(), choice.chosen.end()});
}

void fill_choice(const MapByName& map, const Wanted& wanted) {
  const int nodes_fd = map("nodes");
  for (const auto& [id, node] : wanted.nodes)
    if (!node.down) put(nodes_fd, id, node);
  fill_maglev(map("maglev"), wanted.maglev);
  fill_nodes(map, wanted);
}

/// Maglev's table comes between: it names dispatchers that are there, before and after.
void fill(const MapByName& map, const Wanted& wanted) {
  reconcile_array(map("services"), wanted.services);
  const int nodes_fd = map("nodes");
  for (const auto& [id, node] : wanted.nodes)
    if (node.role == abi::NODE_DISPATCHER) put(nodes_fd, id, node);
  fill_maglev(map("maglev"), wanted.maglev);
  fill_nodes(map, wanted);
  reconcile(map("vips"), wanted.vips);
  reconcile(map("node_addresses"), wanted.node_addresses);
}

void fill_nodes(const MapByName& map, const Wanted& wanted) {
  reconcile_array(map("nodes"), wanted.nodes);
  reconcile(map("own_addresses"), wanted.own_addresses);
}

void fill_settings(const MapByName& map, const config::Config& config,
                   const control::Secret& secret, bool fresh) {
  const int map_fd = map("settings");
  const auto before = sys::map_lookup<abi::switch_settings>(map_fd, std::uint32_t{0})
                          .value_or(abi::switch_settings{});
  const auto after = wanted_settings(config, secret, before, fresh || before.boot == 0);
  if (!same(before, after)) sys::map_update(map_fd, std::uint32_t{0}, after);
}

bool is_ahead(const abi::flow_value& flow, const abi::flow_value& other) {
  const auto generation = [](const abi::flow_value& value) {
    return static_cast<control::Generation>(value.owner.is.generation);
  };
  const auto stage = [](const abi::flow_value& value) {
    if (value.owner.is.owner == 0) return 3;
    if (is_closing(value)) return 2;
    return value.owner.is.spoke ? 1 : 0;
  };
  if (generation(flow) != generation(other))
    return control::newer(generation(flow), generation(other));
  return stage(flow) > stage(other);
}

void copy_flows(int from, int to) {
  sys::map_for_each<abi::flow_key, abi::flow_value>(
      from, [&](const abi::flow_key& key, const abi::flow_value& value) {
        const auto there = sys::map_lookup<abi::flow_value>(to, key);
        if (there && !is_ahead(value, *there)) return;
        try {
          sys::map_update(to, key, value);
        } catch (const std::system_error& error) {
          if (error.code().value() != E2BIG) throw;
          throw std::system_error(
              E2BIG, std::generic_category(),
              "the flows that are alive do not fit into limits.flows: make it larger");
        }
      });
}

}  // namespace tcpmig::steering
