// SPDX-License-Identifier: MIT
#pragma once
#include "sys/aside.hpp"
#include "sys/unique_fd.hpp"

/// close() of what others have had in their hands: here where it cannot take long, else aside (a thread for each costs more than all the rest).
namespace tcpmig::agent {

/// Whether the other end of a Unix connection has been closed.
[[nodiscard]] bool has_hung_up(int channel) noexcept;
/// A Unix connection: long takes what may lie in it unread, a stranger's descriptor.
void close_channel(sys::Aside& aside, sys::UniqueFd channel) noexcept;
/// A TCP socket of this node: long takes the last descriptor where SO_LINGER is set.
void close_connection(sys::Aside& aside, sys::UniqueFd connection) noexcept;

}  // namespace tcpmig::agent
