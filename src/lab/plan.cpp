// SPDX-License-Identifier: MIT
#include "lab/plan.hpp"

#include <algorithm>
#include <cctype>
#include <stdexcept>

namespace tcpmig::lab {
namespace {

const std::string kPrefix = "tcpmig-";

sys::Address address(const std::string& text) { return sys::Address::parse(text).value(); }

/// Networks are 1 clients, 2 dispatchers, 3 servers; host 1 is the switch. The decimal digits of
/// the host are used for both families, so that 10.0.3.12 and fd00:3::12 are the same machine.
sys::Address address4(unsigned network, unsigned host) {
  return address("10.0." + std::to_string(network) + "." + std::to_string(host));
}
sys::Address address6(unsigned network, unsigned host) {
  return address("fd00:" + std::to_string(network) + "::" + std::to_string(host));
}

Port make_port(const std::string& lab, const std::string& node, unsigned network, unsigned host) {
  Port port;
  port.node = node;
  port.netns = netns_name(lab, node);
  port.device = "eth0";
  port.peer = node;
  port.bridge = kBridges[network - 1];
  port.addresses = {{address4(network, host), 24}, {address6(network, host), 64}};
  port.gateways = {address4(network, 1), address6(network, 1)};
  return port;
}

void add_nodes(Plan& plan, const std::string& role, unsigned network, unsigned count) {
  for (unsigned i = 1; i <= count; ++i) {
    const std::string name = role + std::to_string(i);
    Port port = make_port(plan.name, name, network, i + 1);
    plan.nodes.push_back(
        {name, role, port.netns, {address4(network, i + 1), address6(network, i + 1)}, {}});
    plan.ports.push_back(std::move(port));
  }
}

void add_switch(Plan& plan) {
  Node node{"switch1", "switch", netns_name(plan.name, "switch1"), {}, {}};
  for (unsigned network = 1; network <= 3; ++network) {
    Port port = make_port(plan.name, node.name, network, 1);
    port.device = "eth" + std::to_string(network - 1);
    port.peer = "switch1-" + port.bridge;
    port.gateways.clear();
    for (const sys::Prefix& prefix : port.addresses) node.addresses.push_back(prefix.address);
    plan.ports.push_back(std::move(port));
  }
  plan.nodes.push_back(std::move(node));
}

void check_count(const char* what, unsigned count) {
  if (count < 1 || count > kMaxOfAKind)
    throw std::invalid_argument(std::string(what) + ": " + std::to_string(count) +
                                " is not in 1.." + std::to_string(kMaxOfAKind));
}

bool is_node_name(const std::string& text) {
  if (text == "fabric") return true;
  for (const std::string role : {"client", "switch", "dispatcher", "server"})
    if (text.starts_with(role) && text.size() > role.size() &&
        std::all_of(text.begin() + static_cast<long>(role.size()), text.end(),
                    [](unsigned char c) { return std::isdigit(c) != 0; }))
      return true;
  return false;
}

/// Marks the ports that the impairment concerns; each word of `links` must concern one.
void impair_ports(Plan& plan, const Impairment& impairment) {
  plan.impairment = impairment.str();
  for (const std::string& link : impairment.links) {
    Impairment alone;
    alone.links = {link};
    bool any = false;
    for (const Node& node : plan.nodes) {
      if (!alone.concerns(node.name, node.role)) continue;
      any = true;
      for (Port& port : plan.ports) port.impaired = port.impaired || port.node == node.name;
    }
    if (!any)
      throw std::invalid_argument("--impair: links=" + link +
                                  " is no node of this lab: write all, clients, nodes or a node's "
                                  "name such as server1");
  }
}

}  // namespace

void check_name(const std::string& name) {
  const auto allowed = [](unsigned char c) {
    return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '-';
  };
  if (name.empty() || name.size() > 20 || !std::all_of(name.begin(), name.end(), allowed))
    throw std::invalid_argument("\"" + name +
                                "\" is no name for a lab: use 1 to 20 of a-z, 0-9 and -");
  if (name == "default")
    throw std::invalid_argument(
        "\"default\" is the instance of the machine itself: name the lab otherwise");
}

std::string netns_name(const std::string& lab, const std::string& node) {
  return kPrefix + lab + "-" + node;
}

std::string node_of(const std::string& lab, const std::string& netns) {
  const std::string start = kPrefix + lab + "-";
  if (!netns.starts_with(start)) return {};
  std::string node = netns.substr(start.size());
  return is_node_name(node) ? node : std::string();
}

Plan make_plan(const Options& options) {
  check_name(options.name);
  check_count("--clients", options.clients);
  check_count("--dispatchers", options.dispatchers);
  check_count("--servers", options.servers);
  Plan plan;
  plan.name = options.name;
  plan.fabric = netns_name(options.name, "fabric");
  plan.datapath = options.datapath;
  add_nodes(plan, "client", 1, options.clients);
  add_switch(plan);
  add_nodes(plan, "dispatcher", 2, options.dispatchers);
  add_nodes(plan, "server", 3, options.servers);
  plan.nodes.push_back({"fabric", "fabric", plan.fabric, {}, {}});
  if (options.impairment) impair_ports(plan, *options.impairment);
  return plan;
}

Paths::Paths(const std::string& lab)
    : run(std::filesystem::path("/run/tcpmig") / lab),
      state(run / "lab.json"),
      config(run / "tcpmig.toml"),
      secret(run / "secret"),
      pins(std::filesystem::path("/sys/fs/bpf/tcpmig") / lab),
      lock(std::filesystem::path("/run/tcpmig") / (lab + ".lock")) {}

}  // namespace tcpmig::lab
