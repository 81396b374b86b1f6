// SPDX-License-Identifier: MIT
#include "lab/topology.hpp"

#include <fstream>
#include <stdexcept>

#include "lab/impair_process.hpp"
#include "lab/offload.hpp"
#include "sys/netlink.hpp"
#include "sys/netns.hpp"

namespace tcpmig::lab {
namespace {

constexpr std::uint32_t kMtu = 1500;

/// Below /proc/sys of this thread's network namespace. A file that this kernel does not have is
/// none to set.
void write_sysctl(const std::string& path, const std::string& value) {
  const std::string file = "/proc/sys/" + path;
  if (!std::filesystem::exists(file)) return;
  std::ofstream output(file);
  if (!(output << value << std::flush))
    throw std::runtime_error("cannot set " + file + " to " + value);
}

/// Before the first interface exists: new interfaces take over "default".
void set_ipv6(const std::string& name, const std::string& value) {
  for (const std::string scope : {"all", "default"})
    write_sysctl("net/ipv6/conf/" + scope + "/" + name, value);
}

void make_fabric(const std::string& netns) {
  sys::create_netns(netns);
  const sys::EnterNetns inside(netns);
  set_ipv6("disable_ipv6", "1");
  for (const std::string call : {"iptables", "ip6tables", "arptables"})
    write_sysctl("net/bridge/bridge-nf-call-" + call, "0");
  sys::Netlink netlink;
  for (const std::string bridge : kBridges) {
    netlink.create_bridge(bridge);
    netlink.set_link(bridge, true);
  }
}

void make_node(const std::string& netns) {
  sys::create_netns(netns);
  const sys::EnterNetns inside(netns);
  for (const std::string name : {"accept_ra", "autoconf", "accept_dad", "router_solicitations"})
    set_ipv6(name, "0");
}

/// With XDP on the switch's interfaces, two things are wanted of their peers in the fabric and of
/// nobody else (tried one by one): what they transmit must have its checksum finished, and they
/// must take redirected frames.
void prepare_for_xdp(const Port& port) {
  turn_off_tx_checksum(port.peer);
  turn_on_gro(port.peer);
}

/// Two pairs, whose inner ends wait for the process that copies frames between them. What leaves an
/// outer end has its checksum finished and, without that offload, is not larger than the MTU either.
void plug_in_impaired(const Port& port, const std::string& fabric) {
  const sys::EnterNetns inside(fabric);
  sys::Netlink netlink;
  const sys::UniqueFd node = sys::open_netns(port.netns);
  netlink.create_veth(port.peer, bridge_end(port.peer), -1);
  netlink.create_veth(node_end(port.peer), port.device, node.get());
  netlink.set_master(port.peer, port.bridge);
  turn_off_tx_checksum(port.peer);
  for (const std::string& end : {port.peer, bridge_end(port.peer), node_end(port.peer)})
    netlink.set_link(end, true, kMtu);
  const sys::EnterNetns other_end(port.netns);
  turn_off_tx_checksum(port.device);
}

void plug_in(const Port& port, const std::string& fabric, bool xdp) {
  const sys::EnterNetns inside(fabric);
  sys::Netlink netlink;
  const sys::UniqueFd node = sys::open_netns(port.netns);
  netlink.create_veth(port.peer, port.device, node.get());
  netlink.set_master(port.peer, port.bridge);
  if (xdp && port.node.starts_with("switch")) prepare_for_xdp(port);
  netlink.set_link(port.peer, true, kMtu);
}

sys::Prefix everything(const sys::Address& gateway) {
  return sys::Prefix::parse(gateway.is_ipv4() ? "0.0.0.0/0" : "::/0").value();
}

void configure(const Port& port) {
  const sys::EnterNetns inside(port.netns);
  sys::Netlink netlink;
  netlink.set_link(port.device, true, kMtu);
  const auto link = netlink.find_link(port.device);
  if (!link) throw std::runtime_error(port.device + " of " + port.node + " has gone");
  for (const sys::Prefix& prefix : port.addresses) netlink.add_address(link->index, prefix);
  for (const sys::Address& gateway : port.gateways)
    netlink.add_route({.destination = everything(gateway), .gateway = gateway, .oif = link->index});
}

}  // namespace

void build_topology(const Plan& plan) {
  for (const Node& node : plan.nodes)
    if (node.role == "fabric")
      make_fabric(node.netns);
    else
      make_node(node.netns);
  const bool xdp = plan.datapath == config::Datapath::kXdp;
  for (const Port& port : plan.ports)
    if (port.impaired)
      plug_in_impaired(port, plan.fabric);
    else
      plug_in(port, plan.fabric, xdp);
  for (const Port& port : plan.ports) configure(port);
}

}  // namespace tcpmig::lab
