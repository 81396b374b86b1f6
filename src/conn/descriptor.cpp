// SPDX-License-Identifier: MIT
// A descriptor over a Unix socket. Frame: length of the note (u32, this machine's byte order),
// note; the descriptor hangs on the first byte.
#include <sys/socket.h>
#include <sys/time.h>

#include <array>
#include <cstring>
#include <stdexcept>

#include <tcpmig/migrate.hpp>
#include <tcpmig/resume.hpp>

#include "conn/offer.hpp"
#include "conn/parcel.hpp"
#include "conn/rest.hpp"
#include "handover/handover.h"
#include "sys/check.hpp"
#include "sys/unique_fd.hpp"

namespace tcpmig {
namespace {

constexpr std::size_t kMaxNote = 4096;
constexpr std::size_t kMostRest = (8U << 20) + 64;

/// Room for one control message with one descriptor, aligned as the kernel wants it.
struct Control {
  alignas(cmsghdr) std::array<char, CMSG_SPACE(sizeof(int))> bytes{};
};

sys::UniqueFd take_descriptor(msghdr& message) {
  sys::UniqueFd fd;
  for (cmsghdr* control = CMSG_FIRSTHDR(&message); control != nullptr;
       control = CMSG_NXTHDR(&message, control)) {
    if (control->cmsg_level != SOL_SOCKET || control->cmsg_type != SCM_RIGHTS) continue;
    int raw = -1;
    std::memcpy(&raw, CMSG_DATA(control), sizeof(raw));
    fd.reset(raw);
  }
  return fd;
}

}  // namespace

void send_descriptor(int unix_socket, int fd, std::string_view note) {
  if (note.size() > kMaxNote)
    throw std::invalid_argument("send_descriptor: the note is longer than 4096 bytes");
  auto length = static_cast<std::uint32_t>(note.size());
  std::array<iovec, 2> parts{iovec{&length, sizeof(length)},
                             iovec{const_cast<char*>(note.data()), note.size()}};
  Control control;
  msghdr message{};
  message.msg_iov = parts.data();
  message.msg_iovlen = parts.size();
  message.msg_control = control.bytes.data();
  message.msg_controllen = control.bytes.size();
  cmsghdr* rights = CMSG_FIRSTHDR(&message);
  rights->cmsg_level = SOL_SOCKET;
  rights->cmsg_type = SCM_RIGHTS;
  rights->cmsg_len = CMSG_LEN(sizeof(fd));
  std::memcpy(CMSG_DATA(rights), &fd, sizeof(fd));
  const ssize_t sent =
      sys::check("sendmsg of a descriptor", ::sendmsg(unix_socket, &message, MSG_NOSIGNAL));
  if (static_cast<std::size_t>(sent) != sizeof(length) + note.size())
    throw std::runtime_error("send_descriptor: the message was cut");
}

std::optional<std::pair<sys::UniqueFd, std::string>> receive_descriptor(int unix_socket) {
  std::array<char, sizeof(std::uint32_t) + kMaxNote> buffer;
  iovec part{buffer.data(), buffer.size()};
  Control control;
  msghdr message{};
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  message.msg_control = control.bytes.data();
  message.msg_controllen = CMSG_LEN(sizeof(int));  // CMSG_SPACE has room for a second one
  // A stream ends a read at the bytes that a descriptor hangs on: one read is one frame.
  const ssize_t got =
      sys::check("recvmsg of a descriptor", ::recvmsg(unix_socket, &message, MSG_CMSG_CLOEXEC));
  sys::UniqueFd fd = take_descriptor(message);
  if (got == 0) return std::nullopt;
  std::uint32_t length = 0;
  if (static_cast<std::size_t>(got) >= sizeof(length))
    std::memcpy(&length, buffer.data(), sizeof(length));
  if (static_cast<std::size_t>(got) != sizeof(length) + length || !fd ||
      (message.msg_flags & MSG_CTRUNC) != 0)
    throw std::runtime_error("receive_descriptor: not a message of send_descriptor");
  return std::pair(std::move(fd), std::string(buffer.data() + sizeof(length), length));
}

namespace {

void limit_waiting(int unix_socket) {
  const timeval patience{HANDOVER_PATIENCE_MS / 1000, HANDOVER_PATIENCE_MS % 1000 * 1000};
  sys::check("setsockopt SO_RCVTIMEO",
             ::setsockopt(unix_socket, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience));
}

/// The same frame. Behind the connection perhaps a blob, and behind that perhaps what is to be sent first.
conn::Offer unpack(conn::Parcel parcel) {
  std::uint32_t length = 0;
  const bool has_length = parcel.bytes.size() >= sizeof length;
  if (has_length) std::memcpy(&length, parcel.bytes.data(), sizeof length);
  if (!has_length || parcel.bytes.size() != sizeof length + length || parcel.descriptors.empty())
    throw std::runtime_error("take_any_connection: not a connection");
  const auto* note = reinterpret_cast<const char*>(parcel.bytes.data() + sizeof length);
  TakenConnection taken{std::move(parcel.descriptors[0]), std::string(note, length), {}};
  if (parcel.descriptors.size() > 1)
    taken.blob = conn::read_blob(parcel.descriptors[1].get(), kMaxBlob);
  conn::Offer offer{std::move(taken), {}};
  if (parcel.descriptors.size() > 2)
    offer.rest = conn::read_blob(parcel.descriptors[2].get(), kMostRest);
  return offer;
}

}  // namespace

std::optional<std::pair<sys::UniqueFd, std::string>> take_connection(int unix_socket) {
  limit_waiting(unix_socket);
  auto received = receive_descriptor(unix_socket);
  if (received && handover_take(unix_socket, received->first.get()) < 0) return std::nullopt;
  return received;
}

namespace conn {

std::optional<Offer> receive_offer(int unix_socket) {
  limit_waiting(unix_socket);
  auto parcel = receive_parcel(unix_socket);
  if (!parcel) return std::nullopt;
  if (parcel->too_large) throw std::runtime_error("take_any_connection: not a connection");
  return unpack(std::move(*parcel));
}

bool take_offer(int unix_socket, const Offer& offer) {
  const int fd = offer.connection.fd.get();
  if (handover_take(unix_socket, fd) < 0) return false;
  if (offer.rest) write_rest(fd, *offer.rest);
  return true;
}

}  // namespace conn

std::optional<TakenConnection> take_any_connection(int unix_socket) {
  auto offer = conn::receive_offer(unix_socket);
  if (!offer || !conn::take_offer(unix_socket, *offer)) return std::nullopt;
  return std::move(offer->connection);
}

}  // namespace tcpmig
