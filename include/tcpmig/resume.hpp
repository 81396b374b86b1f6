// SPDX-License-Identifier: MIT
#pragma once
#include <optional>
#include <string>
#include <string_view>
#include <utility>

#include <tcpmig/snapshot.hpp>
#include "sys/unique_fd.hpp"

namespace tcpmig {

/// Repair resume: a new socket that goes on with `snapshot`, its received bytes in its receive queue, by TCP_REPAIR (any kernel
/// >= 4.8 that has it). `local` replaces snapshot.local (NAT on the way). Needs CAP_NET_ADMIN in the user namespace of
/// the network namespace. The local address need not be on an interface: a local route to it is enough (IP_FREEBIND,
/// IPV6_FREEBIND); connect() wants that much. No packet leaves before everything is restored; afterwards repair
/// mode is left with TCP_REPAIR_OFF_NO_WP, then one pure ACK may be sent by the kernel when it likes.
/// A FIN of the peer (snapshot.peer_closed) is not restored: a kernel learns of it from a packet only. The caller puts one in
/// (a TUN, see conn/segment.hpp), or the peer's end is never read.
/// Refuses (throws std::invalid_argument) a snapshot with `sent` or `unsent` data. Throws std::system_error naming the step that failed.
sys::UniqueFd repair_resume(const Snapshot& snapshot, std::optional<sys::Endpoint> local = {});

/// Hands a descriptor over a connected Unix socket (SCM_RIGHTS), with `note` (at most 4096 bytes) as the message.
void send_descriptor(int unix_socket, int fd, std::string_view note);
/// The counterpart: nullopt on an orderly end of the peer.
std::optional<std::pair<sys::UniqueFd, std::string>> receive_descriptor(int unix_socket);

}  // namespace tcpmig
