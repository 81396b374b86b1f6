// SPDX-License-Identifier: MIT
#pragma once
#include <cstddef>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>

#include <tcpmig/snapshot.hpp>
#include "sys/unique_fd.hpp"

namespace tcpmig {

/// Gives one whole IP packet to this kernel as if it had been received.
using Deliver = std::function<void(std::span<const std::byte>)>;

/// Repair resume: a new socket that goes on with `snapshot` by TCP_REPAIR (any kernel >= 4.8 that has it): every state, the bytes of all
/// queues, the settings. `local` replaces snapshot.local (NAT on the way; of the same family). Needs CAP_NET_ADMIN in the user namespace of
/// the network namespace. The local address need not be on an interface: a local route to it is enough (IP_FREEBIND,
/// IPV6_FREEBIND); connect() wants that much. No packet leaves before everything is restored. Then what was not sent is sent, and where the
/// peer may have more to say (bytes that it has not acknowledged) it is asked by a window probe; else one pure ACK may be sent by the kernel
/// when it likes.
/// That the peer has closed, and that it has acknowledged our FIN, a kernel learns from a packet only: one is made up in the peer's name and
/// given to `deliver` (a TUN: sys::Tun); empty: to a raw socket, which needs CAP_NET_RAW and no more.
/// What is not carried: the congestion window, the round-trip time, ts_recent (docs/kernel-notes.md), and of what an application sets all that
/// SocketSettings does not name (SO_RCVLOWAT, timeouts of its calls, TCP_LINGER2, fixed buffer sizes, ..).
/// Throws std::invalid_argument on a snapshot that contradicts itself, std::system_error or std::runtime_error naming the step that failed; the
/// connection is then closed without a packet, and may be resumed again.
sys::UniqueFd repair_resume(const Snapshot& snapshot, std::optional<sys::Endpoint> local = {},
                            const Deliver& deliver = {});

/// Hands a descriptor over a connected Unix socket (SCM_RIGHTS), with `note` (at most 4096 bytes) as the message.
void send_descriptor(int unix_socket, int fd, std::string_view note);
/// The counterpart: nullopt on an orderly end of the peer.
std::optional<std::pair<sys::UniqueFd, std::string>> receive_descriptor(int unix_socket);

}  // namespace tcpmig
