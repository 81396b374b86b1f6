// SPDX-License-Identifier: MIT
#pragma once
#include <memory>
#include <vector>

#include "config/config.hpp"
#include "control/keys.hpp"
#include "shared/switch_maps.h"
#include "switch/node_port.hpp"

struct ring_buffer;

namespace tcpmig::steering {

/// Sends REVOKED (docs/protocol.md) to nodes that have spoken on a flow that is not theirs: the
/// programs drop what such a node says, and put who it was into the ring buffer `revocations`.
class Revoker {
 public:
  Revoker(const config::Config& config, const control::Secret& secret, int ring_fd);

  /// Readable when there is something to tell.
  [[nodiscard]] int fd() const noexcept;
  /// Tells all that is there; what has lain there for long (while nobody read) is dropped.
  void tell();

 private:
  void tell(const abi::revocation& revocation);

  const config::Config& config_;
  NodePort port_;
  std::vector<abi::revocation> waiting_;
  std::unique_ptr<ring_buffer, void (*)(ring_buffer*)> ring_;
};

}  // namespace tcpmig::steering
