// SPDX-License-Identifier: MIT
// The network of the switch under test, in a network namespace without a name: it goes when the
// process goes.
#include <net/if.h>
#include <sched.h>

#include <cstdio>
#include <fstream>
#include <future>
#include <stdexcept>

#include "bpf/switch_rig.hpp"
#include "sys/check.hpp"

namespace rig {
namespace {

constexpr int kDispatcher = 1, kUnresolved = 3, kOtherInterface = 4, kNoRoute = 6, kSmallMtu = 7,
              kNodes = 7;

std::string str(const Mac& mac) {
  char text[18];
  std::snprintf(text, sizeof text, "%02x:%02x:%02x:%02x:%02x:%02x", mac[0], mac[1], mac[2], mac[3],
                mac[4], mac[5]);
  return text;
}

Address address(const std::string& text) { return Address::parse(text).value(); }

/// The far end of each veth stays silent: what it said would be counted by the program under test.
void make_interface(const std::string& name, const std::string& net4, const std::string& net6) {
  const std::string peer = name + "p";
  iproute("link add " + name + " address " + str(mac_of_interface(name)) + " type veth peer name " +
          peer + "\n");
  write_file("/proc/sys/net/ipv6/conf/" + peer + "/disable_ipv6", "1");
  iproute("link set " + peer + " up\nlink set " + name + " up\naddr add " + net4 + ".1/24 dev " +
          name + "\naddr add " + net6 + "::1/64 dev " + name + " nodad\n");
}

std::string neighbour(const Address& who, const Mac& mac, const std::string& interface) {
  return "neigh replace " + who.str() + " lladdr " + str(mac) + " nud permanent dev " + interface +
         "\n";
}

std::string node_commands(const Family& f, int id) {
  if (id == kNoRoute) return "";
  const std::string interface = id == kOtherInterface ? "nodes1" : "nodes0";
  const std::string via = " via " + f.node(id).str() + " dev " + interface;
  std::string text;
  if (id != kUnresolved) text += neighbour(f.node(id), mac_of_node(id), interface);
  text += "route add " + f.vpa(id, 0).str() + (f.version == 4 ? "/18" : "/112") + via +
          (id == kSmallMtu ? " mtu lock 1300" : "") + "\n";
  if (id == kSmallMtu)
    text += "route add " + f.node(id).str() + " dev " + interface + " mtu lock 1300\n";
  if (id == kDispatcher) text += "route add " + f.vip.str() + via + "\n";
  return text;
}

std::string family_commands(const Family& f) {
  const std::string net = f.version == 4 ? "10.1.0." : "fd01::";
  const Address gateway = address(net + "254"), silent = address(net + "253");
  const std::string host = f.version == 4 ? "/32" : "/128";
  std::string text = neighbour(f.client, mac_of_client(), "clients0") +
                     neighbour(gateway, mac_of_gateway(), "clients0");
  text += "route add " + f.far.str() + host + " via " + gateway.str() + "\n";
  text += "route add " + f.far_unresolved.str() + host + " via " + silent.str() + "\n";
  for (int id = 1; id <= kNodes; id++) text += node_commands(f, id);
  return text;
}

int make_namespace() {
  // in a thread of its own, which leaves its namespace for ever
  return std::async(std::launch::async,
                    [] {
                      tcpmig::sys::check("unshare the network namespace", ::unshare(CLONE_NEWNET));
                      iproute("link set lo up\n");
                      make_interface("clients0", "10.1.0", "fd01");
                      make_interface("nodes0", "10.2.0", "fd02");
                      make_interface("nodes1", "10.3.0", "fd03");
                      iproute(family_commands(family(4)));
                      iproute(family_commands(family(6)));
                      write_file("/proc/sys/net/ipv4/ip_forward", "1");
                      write_file("/proc/sys/net/ipv6/conf/all/forwarding", "1");
                      return tcpmig::sys::current_netns().release();
                    })
      .get();
}

Family make_family(int version) {
  const bool v4 = version == 4;
  return {.version = version,
          .client = address(v4 ? "10.1.0.2" : "fd01::2"),
          .far = address(v4 ? "192.0.2.77" : "2001:db8:77::77"),
          .far_unresolved = address(v4 ? "192.0.2.78" : "2001:db8:77::78"),
          .vip = address(v4 ? "203.0.113.10" : "2001:db8:113::10"),
          .elsewhere = address(v4 ? "10.2.0.99" : "fd02::99"),
          .own_clients = address(v4 ? "10.1.0.1" : "fd01::1"),
          .own_nodes = address(v4 ? "10.2.0.1" : "fd02::1"),
          .own_nodes1 = address(v4 ? "10.3.0.1" : "fd03::1")};
}

}  // namespace

void iproute(const std::string& commands) {
  FILE* pipe = ::popen("ip -batch -", "w");
  if (pipe == nullptr) throw std::runtime_error("popen ip");
  std::fputs(commands.c_str(), pipe);
  if (::pclose(pipe) != 0) throw std::runtime_error("ip -batch failed for:\n" + commands);
}

void write_file(const std::string& path, const std::string& text) { std::ofstream(path) << text; }

int topology() {
  static const int netns = make_namespace();
  return netns;
}

const Family& family(int version) {
  static const Family v4 = make_family(4), v6 = make_family(6);
  return version == 4 ? v4 : v6;
}

Address Family::node(int id) const {
  if (id == kNoRoute) return address(version == 4 ? "198.51.100.6" : "2001:db8:66::6");
  const std::string net = id == kOtherInterface ? "3" : "2", host = std::to_string(id + 1);
  return address(version == 4 ? "10." + net + ".0." + host : "fd0" + net + "::" + host);
}

Address Family::vpa(int id, int service) const {
  const unsigned low = static_cast<unsigned>(id) << 14 | static_cast<unsigned>(service);
  char text[64];
  if (version == 4)
    std::snprintf(text, sizeof text, "100.%u.%u.%u", 64 + (low >> 16), low >> 8 & 255, low & 255);
  else
    std::snprintf(text, sizeof text, "fd7c::%x:%x", static_cast<unsigned>(id),
                  static_cast<unsigned>(service));
  return address(text);
}

Mac mac_of_interface(const std::string& name) {
  const std::uint8_t which = name == "clients0" ? 1 : name == "nodes0" ? 2 : 3;
  return {2, 0, 0, 0, which, 1};
}
Mac mac_of_client() { return {2, 0, 0, 0, 1, 2}; }
Mac mac_of_gateway() { return {2, 0, 0, 0, 1, 254}; }
Mac mac_of_node(int id) {
  return {2,
          0,
          0,
          0,
          static_cast<std::uint8_t>(id == kOtherInterface ? 3 : 2),
          static_cast<std::uint8_t>(id + 1)};
}

}  // namespace rig
