// SPDX-License-Identifier: MIT
#pragma once
#include "config/config.hpp"
#include "sys/ledger.hpp"
#include "sys/netlink.hpp"

namespace tcpmig::control {

/// What a node (dispatcher or server) needs of its own network, set through the ledger (so that undo() gives it back):
///  - its whole VPA block is local: one `local` route per family (facts: wildcard listeners accept on any address in it);
///  - what it sends from the block leaves through the switch, even where that is not the default gateway: a rule `from BLOCK` and a
///    default route in a table of its own.
/// A family in which the node has no own address is left out. Throws std::runtime_error with a sentence when the switch cannot be found.
class NodeNetwork {
 public:
  static constexpr std::uint32_t kTable = 7420;
  static constexpr std::uint32_t kRulePriority = 7420;

  NodeNetwork(const config::Config& config, const config::Node& self, sys::Ledger& ledger,
              sys::Netlink& netlink);

  /// The switch's nearest address, where COMMIT, DATA, GONE and RENEW go; unset for a family that is left out.
  [[nodiscard]] sys::Address switch4() const noexcept { return switch4_; }
  [[nodiscard]] sys::Address switch6() const noexcept { return switch6_; }
  /// The same as an endpoint on the control port, by the family of `client`.
  [[nodiscard]] sys::Endpoint switch_for(const sys::Address& client) const noexcept;
  [[nodiscard]] const sys::Prefix& block4() const noexcept { return block4_; }
  [[nodiscard]] const sys::Prefix& block6() const noexcept { return block6_; }

 private:
  sys::Address switch4_;
  sys::Address switch6_;
  sys::Prefix block4_;
  sys::Prefix block6_;
  std::uint16_t port_ = 0;
};

}  // namespace tcpmig::control
