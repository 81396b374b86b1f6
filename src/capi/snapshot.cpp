// SPDX-License-Identifier: MIT
#include <algorithm>
#include <cstring>
#include <memory>

#include <tcpmig/codec.hpp>

#include "capi/guard.hpp"
#include "capi/handles.hpp"

namespace {

using tcpmig::DecodeError;
using tcpmig::Snapshot;
using tcpmig::capi::fail;
using tcpmig::capi::guarded;
using tcpmig::capi::refuse;

std::uint32_t options_of(const Snapshot& snapshot) {
  std::uint32_t options = 0;
  if (snapshot.wscale) options |= TCPMIG_WSCALE;
  if (snapshot.timestamps) {
    options |= TCPMIG_TIMESTAMPS;
    if (snapshot.timestamps->ts_recent) options |= TCPMIG_TS_RECENT;
    if (snapshot.timestamps->microseconds) options |= TCPMIG_TS_USEC;
  }
  if (snapshot.sack) options |= TCPMIG_SACK;
  if (snapshot.ecn) options |= TCPMIG_ECN;
  if (snapshot.mapped) options |= TCPMIG_MAPPED;
  return options;
}

tcpmig_info info_of(const Snapshot& snapshot) {
  const auto timestamps = snapshot.timestamps.value_or(tcpmig::Timestamps{});
  const auto scale = snapshot.wscale.value_or(tcpmig::WindowScale{});
  return {.state = static_cast<std::uint32_t>(snapshot.state),
          .options = options_of(snapshot),
          .rcv_nxt = snapshot.rcv_nxt.value,
          .snd_una = snapshot.snd_una.value,
          .snd_nxt = snapshot.snd_nxt.value,
          .snd_wnd = snapshot.snd_wnd,
          .tsval = timestamps.tsval_now,
          .ts_recent = timestamps.ts_recent.value_or(0),
          .srtt_us = snapshot.srtt_us,
          .mss = snapshot.mss,
          .snd_wscale = scale.snd,
          .rcv_wscale = scale.rcv};
}

int write_address(const tcpmig::Endpoint& end, sockaddr* address, socklen_t* length) {
  if (address == nullptr) return refuse("address");
  if (length == nullptr) return refuse("length");
  const auto [storage, size] = end.to_sockaddr();
  std::memcpy(address, &storage, std::min(*length, size));
  *length = size;
  return 0;
}

int errno_of(DecodeError error) {
  switch (error) {
    case DecodeError::kTruncated:
    case DecodeError::kMagic:
    case DecodeError::kField:
    case DecodeError::kTrailing:
      return EBADMSG;
    case DecodeError::kVersion:
      return EPROTONOSUPPORT;
    case DecodeError::kTooLarge:
      return EFBIG;
  }
  return EBADMSG;
}

const std::vector<std::byte>* queue_of(const Snapshot& snapshot, int queue) {
  switch (queue) {
    case TCPMIG_RECEIVED:
      return &snapshot.received;
    case TCPMIG_SENT:
      return &snapshot.sent;
    case TCPMIG_UNSENT:
      return &snapshot.unsent;
    default:  // a number that a caller made up
      return nullptr;
  }
}

}  // namespace

extern "C" {

int tcpmig_snapshot_info(const tcpmig_snapshot* snapshot, tcpmig_info* info,
                         std::size_t size) noexcept {
  if (snapshot == nullptr) return refuse("snapshot");
  if (info == nullptr) return refuse("info");
  const tcpmig_info whole = info_of(*snapshot->shown);
  std::memset(info, 0, size);
  std::memcpy(info, &whole, std::min(size, sizeof whole));
  return 0;
}

int tcpmig_snapshot_local(const tcpmig_snapshot* snapshot, sockaddr* address,
                          socklen_t* length) noexcept {
  if (snapshot == nullptr) return refuse("snapshot");
  return write_address(snapshot->shown->local, address, length);
}

int tcpmig_snapshot_peer(const tcpmig_snapshot* snapshot, sockaddr* address,
                         socklen_t* length) noexcept {
  if (snapshot == nullptr) return refuse("snapshot");
  return write_address(snapshot->shown->peer, address, length);
}

int tcpmig_snapshot_queue(const tcpmig_snapshot* snapshot, int queue, const void** bytes,
                          std::size_t* size) noexcept {
  if (snapshot == nullptr) return refuse("snapshot");
  if (bytes == nullptr || size == nullptr) return refuse("bytes, size");
  const auto* found = queue_of(*snapshot->shown, queue);
  if (found == nullptr) return refuse("queue", "no such queue");
  *bytes = found->data();
  *size = found->size();
  return 0;
}

ssize_t tcpmig_snapshot_encode(const tcpmig_snapshot* snapshot, void* buffer,
                               std::size_t capacity) noexcept {
  if (snapshot == nullptr) return refuse("snapshot");
  if (tcpmig::capi::lacks_bytes(buffer, capacity)) return refuse("buffer");
  return guarded([&]() -> ssize_t {
    const auto encoded = tcpmig::encode(*snapshot->shown);
    if (encoded.size() <= capacity) std::memcpy(buffer, encoded.data(), encoded.size());
    return static_cast<ssize_t>(encoded.size());
  });
}

int tcpmig_snapshot_encode_new(const tcpmig_snapshot* snapshot, void** bytes,
                               std::size_t* size) noexcept {
  if (snapshot == nullptr) return refuse("snapshot");
  if (bytes == nullptr || size == nullptr) return refuse("bytes, size");
  *bytes = nullptr;
  *size = 0;
  return guarded([&] {
    const auto encoded = tcpmig::encode(*snapshot->shown);
    *bytes = tcpmig::capi::copy_for_caller(encoded);
    *size = encoded.size();
    return 0;
  });
}

int tcpmig_snapshot_decode(const void* bytes, std::size_t size,
                           tcpmig_snapshot** snapshot) noexcept {
  if (snapshot == nullptr) return refuse("snapshot");
  *snapshot = nullptr;
  if (tcpmig::capi::lacks_bytes(bytes, size)) return refuse("bytes");
  return guarded([&] {
    auto decoded = tcpmig::decode(tcpmig::capi::bytes_of(bytes, size));
    if (!decoded) return fail(errno_of(decoded.error()), to_string(decoded.error()).c_str());
    auto made = std::make_unique<tcpmig_snapshot>();
    made->own = std::move(*decoded);
    *snapshot = made.release();
    return 0;
  });
}

void tcpmig_snapshot_free(tcpmig_snapshot* snapshot) noexcept { delete snapshot; }

}  // extern "C"
