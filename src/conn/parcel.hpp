// SPDX-License-Identifier: MIT
#pragma once
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "sys/unique_fd.hpp"

namespace tcpmig::conn {

/// One message of a Unix socket (SOCK_SEQPACKET), and the descriptors that hang on it, close-on-exec.
struct Parcel {
  std::vector<std::byte> bytes;
  std::vector<sys::UniqueFd> descriptors;
};
inline constexpr std::size_t kParcelBytes = 4096 + sizeof(std::uint32_t);  ///< at most
inline constexpr std::size_t kParcelDescriptors = 2;                       ///< at most

/// Throws std::system_error.
void send_parcel(int unix_socket, std::span<const std::byte> bytes,
                 std::span<const int> descriptors);
/// nullopt: an orderly end of the peer. Throws std::system_error (EAGAIN: nothing is there), and EMSGSIZE for a message that is larger or
/// brings more descriptors (they are closed).
std::optional<Parcel> receive_parcel(int unix_socket);

/// The bytes as a file that nobody can change any more (memfd_create(2)), to be sent along. Throws std::system_error.
sys::UniqueFd make_blob(std::span<const std::byte> bytes);
/// Of any descriptor whatever: only such a file is read, so nobody can make it wait. Throws std::system_error: EMSGSIZE above `most`
/// bytes, EINVAL for what is none.
std::vector<std::byte> read_blob(int fd, std::size_t most);

}  // namespace tcpmig::conn
