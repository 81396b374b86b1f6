// SPDX-License-Identifier: MIT
#pragma once
#include <filesystem>
#include <string>

#include "sys/unique_fd.hpp"

namespace tcpmig::agent {

/// The Unix socket (SOCK_SEQPACKET) where programs ask with their tickets. Anybody may connect, for servers run as all kinds of users:
/// the right to a connection is shown by the ticket, not by the asker. Only root can put another socket in its place: by that programs know
/// that it is the agent's. One that a killed agent has left is replaced. Throws std::system_error.
sys::UniqueFd listen_for_claims(const std::filesystem::path& path);

/// Connected to the socket that a program listens on; does not wait. Throws std::system_error: EAGAIN where too many wait.
sys::UniqueFd connect_to_program(const std::string& path);

}  // namespace tcpmig::agent
