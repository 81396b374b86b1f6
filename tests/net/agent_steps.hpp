// SPDX-License-Identifier: MIT
#pragma once
#include "agent_world.hpp"

// What several tests of the agent do alike.
namespace agent_test {

inline const std::string kRequest = "GET / HTTP/1.1\r\n\r\n";
/// The client's next sequence number after kRequest.
inline const auto kNext = 5'000 + static_cast<std::uint32_t>(kRequest.size());

/// A whole transfer of kRequest, checked up to its answer.
UniqueFd open_one(World& world, const UniqueFd& listener, const Endpoint& client,
                  std::uint32_t generation = 1000);
/// Ends it at once: this world's clients never acknowledge a FIN.
void reset(UniqueFd connection);
/// The server closes first, the client agrees: its socket is in TIME_WAIT then.
void close_into_time_wait(World& world, UniqueFd connection, const Endpoint& client);

/// From now on a server that closes first keeps nothing of its connection.
void no_room_for_time_wait(const World& world);
/// Of the server, with this client; TIME_WAIT is one.
bool has_no_socket(const World& world, const Endpoint& client);

/// The header of a message to the agent about a flow.
tcpmig::abi::wire_header about(const Endpoint& client, std::uint8_t type,
                               std::uint32_t generation = 1000);
/// A TCP header with data, as a former owner captures it.
Bytes segment(std::uint32_t seq, std::uint32_t ack, std::string_view data);

/// The client is told of the end of its connection more than once: one packet may be lost.
void check_reset_repeatedly(World& world, const Endpoint& client, std::uint32_t seq);

void send_without(World& world, const std::vector<tcpmig::control::Outgoing>& parts,
                  std::size_t left_out);

}  // namespace agent_test
