// SPDX-License-Identifier: MIT
#pragma once
#include "config/config.hpp"
#include "control/keys.hpp"
#include "control/message.hpp"
#include "sys/unique_fd.hpp"

namespace tcpmig::steering {

/// What `switch run` says to nodes, in the switch's own name (sender 0).
class NodePort {
 public:
  /// `lane`: nodes number what they hear by lane, so two who speak need two.
  NodePort(const config::Config& config, const control::Secret& secret, std::uint8_t lane);

  /// About a flow of `message.header.family`, to the control port of node `message.header.target`. False: not sent (errno says
  /// why; ENOENT: no such node, or it has no address of that family).
  bool send(control::Outgoing message);

 private:
  const config::Config& config_;
  control::Sealer sealer_;
  sys::UniqueFd socket4_, socket6_;
};

}  // namespace tcpmig::steering
