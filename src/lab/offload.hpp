// SPDX-License-Identifier: MIT
#pragma once
#include <string>

namespace tcpmig::lab {

/// `ethtool -K DEVICE tx off` in this thread's network namespace (SIOCETHTOOL): what leaves the
/// device carries a finished checksum. An XDP program has no CHECKSUM_PARTIAL: it would forward the
/// half-made checksum of a veth peer as it is, and nobody would take the packet.
void turn_off_tx_checksum(const std::string& device);

/// `ethtool -K DEVICE gro on`: gives a veth device a NAPI loop. Without one (and without an XDP
/// program of its own) it takes no frame that is redirected to its peer: veth_xdp_xmit() counts
/// them as drops (drivers/net/veth.c).
void turn_on_gro(const std::string& device);

}  // namespace tcpmig::lab
