// SPDX-License-Identifier: MIT
#pragma once
#include <optional>
#include <string>
#include <vector>

#include "config/config.hpp"
#include "sys/ledger.hpp"
#include "sys/netlink.hpp"

/// What the switch needs of the machine it runs on: forwarding, no reverse-path filter, routes.
namespace tcpmig::steering {

/// Where packets for one address of a node go now.
struct Hop {
  int ifindex = 0;  ///< 0: not reached, or through an interface that is not declared
  std::optional<sys::Address>
      next;  ///< where its VPA block goes: the node itself, or the router before it
  std::uint32_t route_mtu = 0;  ///< the route's own; 0 = it has none
};

struct Reach {
  Hop hop4, hop6;
  std::string trouble;  ///< a sentence; empty when all is well
  /// The interface that its packets are accepted on.
  [[nodiscard]] int ifindex() const { return hop4.ifindex != 0 ? hop4.ifindex : hop6.ifindex; }
};

/// The machine's links and routes as they are at one moment.
class Host {
 public:
  Host(sys::Netlink& netlink, const config::Switch& self);

  /// Throws one sentence that names every declared interface that does not exist.
  void require_interfaces() const;
  [[nodiscard]] int ifindex(const std::string& interface) const;  ///< 0: there is none
  [[nodiscard]] std::string name(int ifindex) const;              ///< "" : there is none
  [[nodiscard]] Reach reach(const config::Node& node) const;
  /// Addresses on the interfaces towards nodes: control datagrams come to them.
  [[nodiscard]] std::vector<sys::Address> own_addresses() const;

  /// Forwarding on, rp_filter off on the declared interfaces. Where conf.all would win (the maximum
  /// counts), it is lowered and every other interface gets its value instead, so that nothing
  /// changes for them; likewise accept_ra, which forwarding would switch off.
  void set_sysctls(sys::Ledger& ledger) const;

  /// Routes that the configuration calls for: each node's VPA block, and each VIP (by the first
  /// dispatcher that is reached), so that the kernel can answer for TTL and MTU. The MTU of a VIP is
  /// the smallest on the way to any node: whoever owns a flow, what does not fit is answered for.
  [[nodiscard]] std::vector<sys::Route> wanted_routes(const config::Config& config) const;

 private:
  [[nodiscard]] Hop hop(const sys::Address& address, std::string& trouble) const;
  [[nodiscard]] std::uint32_t mtu_of(const sys::Route& route) const;
  [[nodiscard]] std::vector<sys::Route> vip_routes(const config::Config& config, bool ipv4,
                                                   const std::vector<sys::Route>& dispatchers,
                                                   const std::vector<sys::Route>& all) const;

  sys::Netlink& netlink_;
  const config::Switch& self_;
  std::vector<sys::Link> links_;
};

}  // namespace tcpmig::steering
