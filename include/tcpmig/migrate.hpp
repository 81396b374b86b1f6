// SPDX-License-Identifier: MIT
#pragma once
#include <chrono>
#include <cstddef>
#include <expected>
#include <span>
#include <string>
#include <string_view>

#include <tcpmig/unique_fd.hpp>

namespace tcpmig {

/// What an application may send along with a connection, bytes.
inline constexpr std::size_t kMaxBlob = 1U << 20;

struct MigrateOptions {
  /// The Unix socket of this node's agent, /run/tcpmig/CLUSTER/NODE/exec.sock. Empty: the one that the environment names (TCPMIG_EXEC, as `tcpmig
  /// exec` sets it: its part before the first comma).
  std::string agent;
  /// How long an agent may be away (killed, and started again) or stand still before it is given up, at least a second. One that works says so five times a
  /// second, and is waited for. (Each step of a transfer has its deadline, timeouts.transfer of the configuration: a silent target takes three of them.)
  std::chrono::milliseconds patience{60'000};
};

/// A connection that did not go.
struct MigrateRefused {
  /// It goes on here, as it was. Empty: it is not this program's any more, and perhaps nobody's (error ENOTRECOVERABLE): the switch has lost its
  /// table in the middle, or the agent did not come back.
  UniqueFd fd;
  std::string reason;
  /// errno: EMSGSIZE (the blob, or what waits in the queues), ENOTCONN (no connection that the agent has opened here), EPROTOTYPE (not TCP),
  /// EADDRNOTAVAIL (`target` is no other server of the service), EOPNOTSUPP (it has no `handoff`, or the connection has a property that cannot be
  /// carried), EALREADY (it is being moved already), EAGAIN (not now: too many are being moved, or its request is still being delivered),
  /// ECONNREFUSED (the target does not take it), ETIMEDOUT (the target is silent, or the agent has not begun), ECONNABORTED (the agent was ended in the middle);
  /// or what a system call said: ENOENT, ECONNREFUSED: there is no agent.
  int error = 0;
};

/// Gives a live connection of a tcpmig cluster, whatever state it is in and whatever its queues hold, to the program that listens at the `handoff` of
/// the server `target`, a node of the same service, which gets `blob` along with it (take_any_connection() in resume.hpp). The client notices nothing, but a
/// pause. Needs no right: who has the descriptor may give the connection away. Other descriptors of the same connection (dup, fork) must not
/// be used meanwhile, and only be closed afterwards. Blocks, some milliseconds as a rule. Returns when the target's program has it; nothing is sent to the client by this end from then on. Whatever
/// goes wrong before gives the connection back. A target that falls silent may have begun with it, but then the client has heard nothing of that.
std::expected<void, MigrateRefused> migrate(UniqueFd fd, std::string_view target,
                                            std::span<const std::byte> blob = {},
                                            const MigrateOptions& options = {});

}  // namespace tcpmig
