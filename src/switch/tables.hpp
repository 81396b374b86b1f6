// SPDX-License-Identifier: MIT
#pragma once
#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <vector>

#include "config/config.hpp"
#include "control/keys.hpp"
#include "shared/switch_maps.h"
#include "switch/health.hpp"
#include "sys/address.hpp"

namespace tcpmig::steering {

/// What the maps shall hold, worked out from the configuration. Pure but for the secret's keys.
struct Wanted {
  std::vector<std::pair<abi::vip_key, std::uint32_t>> vips;
  std::map<std::uint32_t, abi::service_entry> services;
  std::map<std::uint32_t, abi::node_entry> nodes;
  std::vector<std::pair<abi::ip_address, std::uint32_t>> own_addresses;
  std::vector<std::pair<abi::ip_address, std::uint32_t>> node_addresses;
  std::vector<std::uint32_t> maglev;
};

/// `ifindex_of`: the switch's interface behind which a node is; 0 = not known.
Wanted wanted(const config::Config& config, const control::Secret& secret,
              const std::function<std::uint32_t(const config::Node&)>& ifindex_of,
              const std::vector<sys::Address>& own_addresses);

/// Narrows the dispatchers down to those that get clients.
void apply_choice(Wanted& wanted, const DispatcherChoice& choice);

/// Settings that follow from the configuration; `before` gives what must not change while the flow
/// table lives: made anew when it is `fresh`. Then the switch recovers for timeouts.recovery. The
/// hash key comes from the secret, so that connections at a dispatcher stay with it when the table
/// is lost.
abi::switch_settings wanted_settings(const config::Config& config, const control::Secret& secret,
                                     const abi::switch_settings& before, bool fresh);

/// Finds the descriptor of a map by its name.
using MapByName = std::function<int(const std::string&)>;

/// Brings the maps in line, entry by entry, touching only what differs: new names go in before old
/// ones go out.
void fill(const MapByName& map, const Wanted& wanted);
/// The part of it that may change while a switch runs: own addresses and the nodes' interfaces.
void fill_nodes(const MapByName& map, const Wanted& wanted);
/// After apply_choice(): only what changes is written, Maglev's slots before the nodes that go, and after those that come.
void fill_choice(const MapByName& map, const Wanted& wanted);
void fill_settings(const MapByName& map, const config::Config& config,
                   const control::Secret& secret, bool fresh);

/// Whether `flow` knows more than `other`, both of one key: it is of a newer generation, or further
/// on in the same one (the owner has spoken, the end has begun, it has ended).
bool is_ahead(const abi::flow_value& flow, const abi::flow_value& other);

/// Copies transferred flows from a table of another size that programs may still be using, so that
/// a changed limit loses none: entries that are missing in `to`, or ahead of what is there. Throws
/// std::system_error (E2BIG) when they do not fit.
void copy_flows(int from, int to);

}  // namespace tcpmig::steering
