// SPDX-License-Identifier: MIT
#include <netinet/in.h>

#include <algorithm>
#include <cstring>
#include <optional>

#include "capi/guard.hpp"
#include "capi/handles.hpp"
#include "conn/segment.hpp"

namespace {

using tcpmig::Endpoint;
using tcpmig::Snapshot;
using tcpmig::capi::fail;
using tcpmig::capi::guarded;
using tcpmig::capi::refuse;

bool is_any(const tcpmig::Address& address) {
  return !address.is_set() || (address.is_ipv4() && address.v4().s_addr == htonl(INADDR_ANY));
}

/// nullopt: `local` is no address of a connection.
std::optional<Endpoint> to_endpoint(const sockaddr* local, socklen_t length,
                                    const Snapshot& snapshot) {
  if (local == nullptr) return snapshot.local;
  sockaddr_storage storage{};
  if (length < sizeof(sa_family_t) || length > sizeof storage) return std::nullopt;
  std::memcpy(&storage, local, length);
  const bool whole = storage.ss_family == AF_INET    ? length >= sizeof(sockaddr_in)
                     : storage.ss_family == AF_INET6 ? length >= sizeof(sockaddr_in6)
                                                     : false;
  if (!whole) return std::nullopt;
  Endpoint end = Endpoint::from_sockaddr(storage);
  if (is_any(end.address)) return std::nullopt;
  if (end.port == 0) end.port = snapshot.local.port;
  return end;
}

int refuse_local() { return refuse("local", "not an IPv4 or IPv6 address of one host"); }

}  // namespace

extern "C" {

int tcpmig_resume(const tcpmig_snapshot* snapshot, const sockaddr* local, socklen_t local_length,
                  tcpmig_deliver_fn deliver, void* context) noexcept {
  return tcpmig_resume_with(nullptr, snapshot, local, local_length, deliver, context);
}

int tcpmig_resume_with(const tcpmig_resume_kit* kit, const tcpmig_snapshot* snapshot,
                       const sockaddr* local, socklen_t local_length, tcpmig_deliver_fn deliver,
                       void* context) noexcept {
  if (snapshot == nullptr) return refuse("snapshot");
  const auto here = to_endpoint(local, local_length, *snapshot->shown);
  if (!here) return refuse_local();
  return guarded([&] {
    return tcpmig::repair_resume(*snapshot->shown, *here,
                                 tcpmig::capi::to_deliver(deliver, context),
                                 kit != nullptr ? &kit->kit : nullptr)
        .release();
  });
}

int tcpmig_inject(const tcpmig_snapshot* snapshot, const sockaddr* local, socklen_t local_length,
                  const void* segment, std::size_t size, tcpmig_deliver_fn deliver,
                  void* context) noexcept {
  if (snapshot == nullptr) return refuse("snapshot");
  if (segment == nullptr) return refuse("segment");
  const Snapshot& connection = *snapshot->shown;
  const auto here = to_endpoint(local, local_length, connection);
  if (!here) return refuse_local();
  return guarded([&] {
    const auto bytes = tcpmig::capi::bytes_of(segment, size);
    if (!tcpmig::conn::is_intact(connection.peer, connection.local, bytes))
      return fail(EBADMSG, "not a TCP segment of the peer, or its checksum is wrong");
    const tcpmig::Deliver give = deliver != nullptr ? tcpmig::capi::to_deliver(deliver, context)
                                                    : tcpmig::raw_delivery(*here);
    tcpmig::conn::give_packets(connection.peer, *here, bytes, give);
    return 0;
  });
}

int tcpmig_send_descriptor(int unix_socket, int fd, const void* note, std::size_t size) noexcept {
  if (tcpmig::capi::lacks_bytes(note, size)) return refuse("note");
  return guarded([&] {
    tcpmig::send_descriptor(unix_socket, fd, {static_cast<const char*>(note), size});
    return 0;
  });
}

int tcpmig_receive_descriptor(int unix_socket, int* fd, void* note, std::size_t capacity,
                              std::size_t* size) noexcept {
  if (fd == nullptr) return refuse("fd");
  if (size == nullptr) return refuse("size");
  if (tcpmig::capi::lacks_bytes(note, capacity)) return refuse("note");
  *fd = -1;
  *size = 0;
  try {
    auto received = tcpmig::receive_descriptor(unix_socket);
    if (!received) return 0;
    const std::string& text = received->second;
    if (capacity != 0) std::memcpy(note, text.data(), std::min(capacity, text.size()));
    *size = text.size();
    *fd = received->first.release();
    return 1;
  } catch (const std::system_error&) {
    return tcpmig::capi::fail_by_exception();
  } catch (const std::runtime_error& error) {
    return fail(EBADMSG, error.what());
  } catch (...) {
    return tcpmig::capi::fail_by_exception();
  }
}

}  // extern "C"
