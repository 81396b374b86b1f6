// SPDX-License-Identifier: MIT
#include "control/node_network.hpp"

#include <stdexcept>
#include <string>

#include "sys/errors.hpp"

namespace tcpmig::control {
namespace {

/// The configured gateway, or the next hop of the kernel's route to a VIP: the switch as this node sees it.
sys::Address find_switch(const config::Config& config, const config::Node& self, bool ipv4,
                         sys::Netlink& netlink) {
  const sys::Address& configured = ipv4 ? self.gateway4 : self.gateway6;
  if (configured.is_set()) return configured;
  for (const config::Service& service : config.services) {
    const sys::Address& vip = ipv4 ? service.vip4 : service.vip6;
    if (!vip.is_set()) continue;
    const auto route = netlink.route_to(vip);
    if (route && route->gateway) return *route->gateway;
  }
  const std::string key = ipv4 ? "gateway4" : "gateway6";
  throw std::runtime_error(
      "node " + self.name + " cannot tell the switch's " + (ipv4 ? "IPv4" : "IPv6") +
      " address: no gateway on its route to a VIP; set " + key + " of this [[node]]");
}

bool has_services(const config::Config& config, bool ipv4) {
  for (const config::Service& service : config.services)
    if ((ipv4 ? service.vip4 : service.vip6).is_set()) return true;
  return false;
}

}  // namespace

NodeNetwork::NodeNetwork(const config::Config& config, const config::Node& self,
                         sys::Ledger& ledger, sys::Netlink& netlink)
    : block4_(config::vpa4_block(config, self.id)),
      block6_(config::vpa6_block(config, self.id)),
      port_(config.control_port) {
  const auto loopback = netlink.find_link("lo");
  const auto link = netlink.find_link(self.interface);
  if (!loopback) throw std::runtime_error("this machine has no interface lo");
  if (!link)
    throw sys::WrongSetup("node " + self.name + ": there is no interface " + self.interface +
                          ": correct `interface` of this [[node]]");
  for (const bool ipv4 : {true, false}) {
    if (!(ipv4 ? self.address4 : self.address6).is_set() || !has_services(config, ipv4)) continue;
    const sys::Prefix& block = ipv4 ? block4_ : block6_;
    sys::Address& next_hop = ipv4 ? switch4_ : switch6_;
    next_hop = find_switch(config, self, ipv4, netlink);
    ledger.add_route({block, std::nullopt, loopback->index, 255 /* RT_TABLE_LOCAL */, true});
    ledger.add_route(
        {*sys::Prefix::parse(ipv4 ? "0.0.0.0/0" : "::/0"), next_hop, link->index, kTable, false});
    ledger.add_rule({block, kTable, kRulePriority});
  }
}

sys::Endpoint NodeNetwork::switch_for(const sys::Address& client) const noexcept {
  return {client.is_ipv4() ? switch4_ : switch6_, port_};
}

}  // namespace tcpmig::control
