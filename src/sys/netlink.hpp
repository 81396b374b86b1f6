// SPDX-License-Identifier: MIT
#pragma once
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "sys/address.hpp"
#include "sys/unique_fd.hpp"

namespace tcpmig::sys {

/// Routes and rules that tcpmig makes carry this protocol number (`ip route show proto 116`), and
/// only such are removed.
inline constexpr std::uint8_t kRouteProtocol = 116;

/// A route as far as tcpmig sets or asks for one.
struct Route {
  Prefix destination;
  std::optional<Address> gateway;
  int oif = 0;  ///< interface index; 0 = let the kernel find it by the gateway
  std::uint32_t table =
      254;  ///< RT_TABLE_MAIN; a local route that says so goes to table local, as with iproute2
  bool local = false;  ///< type local (a whole block taken in, dev lo)
  std::uint32_t mtu =
      0;  ///< locked (older kernels forward IPv6 by no other); 0 = that of the interface
  bool operator==(const Route&) const = default;
};

/// `ip rule from SOURCE lookup TABLE pref PRIORITY`
struct Rule {
  Prefix source;
  std::uint32_t table = 0;
  std::uint32_t priority = 0;
  bool operator==(const Rule&) const = default;
};

struct Link {
  int index = 0;
  std::string name;
  bool up = false;
  std::uint32_t mtu = 0;
  std::string mac;  ///< six raw bytes; empty where there is none
};

struct LinkAddress {
  int ifindex = 0;
  Prefix prefix;
};

/// As iproute2 would write them.
std::string to_string(const Route& route);
std::string to_string(const Rule& rule);

/// rtnetlink over libmnl, in the network namespace the socket was made in. Every call throws
/// std::system_error that names what was attempted. `add_*` returns false when exactly that exists
/// already, `remove_*` false when it did not exist. Something else in its place (another route to
/// the same destination) is an error, EEXIST.
class Netlink {
 public:
  Netlink();
  Netlink(const Netlink&) = delete;
  Netlink& operator=(const Netlink&) = delete;
  ~Netlink() = default;

  // links
  std::optional<Link> find_link(const std::string& name);
  std::vector<Link> links();
  /// peer_netns_fd -1: the same namespace
  void create_veth(const std::string& name, const std::string& peer, int peer_netns_fd);
  void create_bridge(const std::string& name);
  bool remove_link(const std::string& name);
  void move_link(const std::string& name, int netns_fd);
  void rename_link(const std::string& name, const std::string& new_name);
  void set_link(const std::string& name, bool up, std::optional<std::uint32_t> mtu = {});
  void set_master(const std::string& name, const std::string& bridge);

  // addresses. IPv6 addresses are added with IFA_F_NODAD.
  bool add_address(int ifindex, const Prefix& prefix);
  bool remove_address(int ifindex, const Prefix& prefix);
  std::vector<LinkAddress> addresses();

  // routes and rules
  bool add_route(const Route& route);
  bool remove_route(const Route& route);
  bool add_rule(const Rule& rule);
  bool remove_rule(const Rule& rule);
  /// What the kernel would use now to reach `destination` (RTM_GETROUTE): gateway (if any), oif, the
  /// route's own MTU (if it has one). nullopt: unreachable.
  std::optional<Route> route_to(const Address& destination);

 private:
  UniqueFd fd_;
  std::uint32_t sequence_ = 0;
};

}  // namespace tcpmig::sys
