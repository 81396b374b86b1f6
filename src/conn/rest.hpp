// SPDX-License-Identifier: MIT
#pragma once
#include <cstddef>
#include <optional>
#include <span>
#include <vector>

#include <tcpmig/snapshot.hpp>

/// What a program can do itself on its new connection, without any right: to send what was not sent, and to close. Whoever restores a connection for it
/// leaves that to it, so that a death in between loses nothing: as long as the connection is in repair nobody has heard of it, and when it has
/// left repair the program has the rest.
namespace tcpmig::conn {

struct Rest {
  std::vector<std::byte> unsent;
  bool closes = false;            ///< a FIN follows it
  std::uint32_t send_buffer = 0;  ///< afterwards (SocketSettings)
  bool send_buffer_fixed = false;
};
/// Takes it out of the snapshot: what is left has nothing unsent, and is open. nullopt: there is none. (A FIN that the peer may have seen is none.)
std::optional<Rest> take_rest(Snapshot& snapshot);

/// As a message between two programs of one machine.
std::vector<std::byte> encode_rest(const Rest& rest);
/// A connection for which there is room (reserve_send_space()). Where it has ended meanwhile nothing is said. Throws std::system_error: something is
/// missing, and to close the connection ends it by RST; EBADMSG: not encode_rest().
void write_rest(int fd, std::span<const std::byte> encoded);

}  // namespace tcpmig::conn
