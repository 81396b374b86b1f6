// SPDX-License-Identifier: MIT
#include "config/config.hpp"

#include <algorithm>
#include <cstring>

#include "config/draft.hpp"
#include "shared/switch_maps.h"

namespace tcpmig::config {
namespace {

template <typename List, typename Matches>
auto find_in(const List& list, Matches matches) -> decltype(list.data()) {
  const auto found = std::find_if(list.begin(), list.end(), matches);
  return found == list.end() ? nullptr : &*found;
}

/// The prefix, or the default for a Config that was put together by hand.
abi::ip_address base(const sys::Prefix& prefix, const char* fallback) {
  if (prefix.address.is_set()) return prefix.address.raw();
  return sys::Prefix::parse(fallback).value().address.raw();
}

}  // namespace

const Node* Config::find_node(const std::string& name) const {
  return find_in(nodes, [&](const Node& node) { return node.name == name; });
}

const Node* Config::find_node(NodeId id) const {
  return find_in(nodes, [&](const Node& node) { return node.id == id; });
}

const Switch* Config::find_switch(const std::string& name) const {
  return find_in(switches, [&](const Switch& s) { return s.name == name; });
}

const Service* Config::find_service(ServiceId id) const {
  return find_in(services, [&](const Service& service) { return service.id == id; });
}

const Pool* Config::find_pool(const std::string& name) const {
  return find_in(pools, [&](const Pool& pool) { return pool.name == name; });
}

std::vector<const Node*> Config::with_role(Role role) const {
  std::vector<const Node*> found;
  for (const Node& node : nodes)
    if (node.role == role) found.push_back(&node);
  return found;
}

std::string Problem::str() const {
  std::string text = file;
  if (line > 0) text += ':' + std::to_string(line) + ':' + std::to_string(column);
  text += ": " + what;
  return fix.empty() ? text : text + ": " + fix;
}

bool in_prefix(std::string_view prefix, std::string_view path) {
  if (!path.starts_with(prefix)) return false;
  return path.size() == prefix.size() || prefix.ends_with('/') || path[prefix.size()] == '/';
}

sys::Address vpa4(const Config& config, NodeId node, ServiceId service) {
  abi::ip_address raw = base(config.vpa4, kDefaultVpa4);
  const std::uint32_t low = std::uint32_t{node} << abi::VPA4_SERVICE_BITS | service;
  for (unsigned i = 0; i < 4; ++i)
    raw.bytes[12 + i] = static_cast<std::uint8_t>(raw.bytes[12 + i] | (low >> (24 - 8 * i) & 0xff));
  return sys::Address(raw);
}

sys::Address vpa6(const Config& config, NodeId node, ServiceId service) {
  abi::ip_address raw = base(config.vpa6, kDefaultVpa6);
  const std::uint32_t low = std::uint32_t{node} << 16 | service;
  for (unsigned i = 0; i < 4; ++i)
    raw.bytes[12 + i] = static_cast<std::uint8_t>(low >> (24 - 8 * i) & 0xff);
  return sys::Address(raw);
}

sys::Address own_vpa(const Config& config, NodeId node, bool ipv4) {
  return ipv4 ? vpa4(config, node, 0) : vpa6(config, node, 0);
}

sys::Prefix vpa4_block(const Config& config, NodeId node) {
  return {vpa4(config, node, 0), abi::VPA4_BLOCK_LENGTH};
}

sys::Prefix vpa6_block(const Config& config, NodeId node) {
  return {vpa6(config, node, 0), abi::VPA6_BLOCK_LENGTH};
}

}  // namespace tcpmig::config
