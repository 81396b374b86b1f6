// SPDX-License-Identifier: MIT
#pragma once
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string_view>
#include <vector>

#include "sys/unique_fd.hpp"

namespace tcpmig::conn {

/// One message of a Unix socket (SOCK_SEQPACKET), and the descriptors that hang on it, close-on-exec.
struct Parcel {
  std::vector<std::byte> bytes;
  std::vector<sys::UniqueFd> descriptors;
  bool too_large = false;  ///< there was more of either; `bytes` is empty then
};
inline constexpr std::size_t kParcelBytes = 4096 + sizeof(std::uint32_t);  ///< at most
inline constexpr std::size_t kParcelDescriptors = 3;                       ///< at most

/// Throws std::system_error.
void send_parcel(int unix_socket, std::span<const std::byte> bytes,
                 std::span<const int> descriptors);
/// nullopt: an orderly end of the peer. Throws std::system_error (EAGAIN: nothing is there). Every descriptor that has come is in the parcel, also
/// where there are too many: to close one may take long, and who does it is the caller's choice.
std::optional<Parcel> receive_parcel(int unix_socket);

/// The frame of a connection that is given to a program (tcpmig::send_descriptor): length of the note (u32, this machine's byte order), note.
std::vector<std::byte> note_frame(std::string_view note);

/// A message of handover/handover.h. '\0': it is none.
std::vector<std::byte> handover_frame(char verb, std::string_view rest = {});
char verb_of(const Parcel& parcel);

/// The bytes as a file that nobody can change any more (memfd_create(2)), to be sent along. Throws std::system_error.
sys::UniqueFd make_blob(std::span<const std::byte> bytes);
/// Of any descriptor whatever: only such a file is read, so nobody can make it wait. Throws std::system_error: EMSGSIZE above `most`
/// bytes, EINVAL for what is none.
std::vector<std::byte> read_blob(int fd, std::size_t most);

}  // namespace tcpmig::conn
