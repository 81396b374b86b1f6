// SPDX-License-Identifier: MIT
#include "conn/parcel.hpp"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstring>
#include <system_error>

#include "handover/handover.h"
#include "sys/check.hpp"

namespace tcpmig::conn {
namespace {

constexpr int kSeals = F_SEAL_SEAL | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE;

/// What is sent, and what may come: what there is no room for the kernel closes, in the thread that receives.
constexpr std::size_t kMostInOneMessage = 253;  // net/core/scm.h, SCM_MAX_FD
template <std::size_t descriptors>
struct Control {
  alignas(cmsghdr) std::array<char, CMSG_SPACE(descriptors * sizeof(int))> bytes{};
};

std::vector<sys::UniqueFd> take_descriptors(msghdr& message) {
  std::vector<sys::UniqueFd> result;
  for (cmsghdr* control = CMSG_FIRSTHDR(&message); control != nullptr;
       control = CMSG_NXTHDR(&message, control)) {
    if (control->cmsg_level != SOL_SOCKET || control->cmsg_type != SCM_RIGHTS) continue;
    const std::size_t count = (control->cmsg_len - CMSG_LEN(0)) / sizeof(int);
    for (std::size_t i = 0; i < count; ++i) {
      int raw = -1;
      std::memcpy(&raw, CMSG_DATA(control) + i * sizeof raw, sizeof raw);
      result.emplace_back(raw);
    }
  }
  return result;
}

[[noreturn]] void fail(int error, const char* what) {
  throw std::system_error(error, std::generic_category(), what);
}

}  // namespace

void send_parcel(int unix_socket, std::span<const std::byte> bytes,
                 std::span<const int> descriptors) {
  if (bytes.size() > kParcelBytes || descriptors.size() > kParcelDescriptors)
    fail(EMSGSIZE, "a message to another program");
  iovec part{const_cast<std::byte*>(bytes.data()), bytes.size()};
  Control<kParcelDescriptors> control;
  msghdr message{};
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  if (!descriptors.empty()) {
    message.msg_control = control.bytes.data();
    message.msg_controllen = CMSG_SPACE(descriptors.size_bytes());
    cmsghdr* rights = CMSG_FIRSTHDR(&message);
    rights->cmsg_level = SOL_SOCKET;
    rights->cmsg_type = SCM_RIGHTS;
    rights->cmsg_len = CMSG_LEN(descriptors.size_bytes());
    std::memcpy(CMSG_DATA(rights), descriptors.data(), descriptors.size_bytes());
  }
  ssize_t sent = 0;
  do sent = ::sendmsg(unix_socket, &message, MSG_NOSIGNAL);
  while (sent < 0 && errno == EINTR);
  sys::check("sendmsg", sent);
}

std::optional<Parcel> receive_parcel(int unix_socket) {
  Parcel parcel{std::vector<std::byte>(kParcelBytes), {}, false};
  iovec part{parcel.bytes.data(), parcel.bytes.size()};
  Control<kMostInOneMessage> control;
  msghdr message{};
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  message.msg_control = control.bytes.data();
  message.msg_controllen = control.bytes.size();
  ssize_t got = 0;
  do got = ::recvmsg(unix_socket, &message, MSG_CMSG_CLOEXEC);
  while (got < 0 && errno == EINTR);
  sys::check("recvmsg", got);
  parcel.descriptors = take_descriptors(message);
  if (got == 0 && parcel.descriptors.empty()) return std::nullopt;
  parcel.too_large = (message.msg_flags & (MSG_TRUNC | MSG_CTRUNC)) != 0 ||
                     parcel.descriptors.size() > kParcelDescriptors;
  parcel.bytes.resize(parcel.too_large ? 0 : static_cast<std::size_t>(got));
  return parcel;
}

std::vector<std::byte> note_frame(std::string_view note) {
  const auto length = static_cast<std::uint32_t>(note.size());
  const auto head = std::as_bytes(std::span(&length, 1));
  std::vector<std::byte> frame(head.begin(), head.end());
  const auto text = std::as_bytes(std::span(note));
  frame.insert(frame.end(), text.begin(), text.end());
  return frame;
}

std::vector<std::byte> handover_frame(char verb, std::string_view rest) {
  handover_message head{};
  std::memcpy(head.magic, HANDOVER_MAGIC, sizeof head.magic);
  head.version = HANDOVER_VERSION;
  head.verb = verb;
  const auto raw = std::as_bytes(std::span(&head, 1));
  std::vector<std::byte> frame(raw.begin(), raw.end());
  const auto text = std::as_bytes(std::span(rest));
  frame.insert(frame.end(), text.begin(), text.end());
  return frame;
}

char verb_of(const Parcel& parcel) {
  handover_message head{};
  if (parcel.bytes.size() < sizeof head) return '\0';
  std::memcpy(&head, parcel.bytes.data(), sizeof head);
  const bool known = std::memcmp(head.magic, HANDOVER_MAGIC, sizeof head.magic) == 0 &&
                     head.version == HANDOVER_VERSION;
  return known ? head.verb : '\0';
}

sys::UniqueFd make_blob(std::span<const std::byte> bytes) {
  sys::UniqueFd fd(
      sys::check("memfd_create", ::memfd_create("tcpmig-blob", MFD_CLOEXEC | MFD_ALLOW_SEALING)));
  while (!bytes.empty()) {
    const auto written =
        sys::check("write of a blob", ::write(fd.get(), bytes.data(), bytes.size()));
    bytes = bytes.subspan(static_cast<std::size_t>(written));
  }
  sys::check("fcntl F_ADD_SEALS", ::fcntl(fd.get(), F_ADD_SEALS, kSeals));
  return fd;
}

std::vector<std::byte> read_blob(int fd, std::size_t most) {
  // only what lies in memory has seals
  if (const int seals = ::fcntl(fd, F_GET_SEALS); seals < 0 || (seals & kSeals) != kSeals)
    fail(EINVAL, "the blob is no sealed memory file");
  struct stat status{};
  sys::check("fstat of a blob", ::fstat(fd, &status));
  if (static_cast<std::size_t>(status.st_size) > most)
    fail(EMSGSIZE, "the blob is larger than 1 MB");
  std::vector<std::byte> bytes(static_cast<std::size_t>(status.st_size));
  for (std::size_t read = 0; read < bytes.size();) {
    const auto got =
        sys::check("read of a blob",
                   ::pread(fd, bytes.data() + read, bytes.size() - read, static_cast<off_t>(read)));
    if (got == 0) fail(EIO, "read of a blob");
    read += static_cast<std::size_t>(got);
  }
  return bytes;
}

}  // namespace tcpmig::conn
