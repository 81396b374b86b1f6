// SPDX-License-Identifier: MIT
#include <algorithm>
#include <memory>
#include <string>
#include <utility>

#include "capi/guard.hpp"
#include "capi/handles.hpp"

namespace {

using tcpmig::CapturedSegment;
using tcpmig::FreezeRefused;
using tcpmig::Scope;
using tcpmig::UniqueFd;
using tcpmig::capi::fail;
using tcpmig::capi::guarded;
using tcpmig::capi::refuse;
using Bytes = std::vector<std::byte>;
using Phase = tcpmig_frozen::Phase;

int fail_as_ended() {
  return fail(EALREADY, "the connection has been committed or thawed already");
}

int refuse_freeze_arguments(const tcpmig_kit* kit, int scope, void* const* unread,
                            const std::size_t* unread_size) {
  if (kit == nullptr) return refuse("kit");
  if (scope != TCPMIG_REQUEST && scope != TCPMIG_WHOLE) return refuse("scope", "no such scope");
  if (scope == TCPMIG_REQUEST && (unread == nullptr || unread_size == nullptr))
    return refuse("unread, unread_size", "TCPMIG_REQUEST needs both");
  if (!kit->kit.may_repair())
    return fail(EPERM, "TCP_REPAIR is not permitted: it takes CAP_NET_ADMIN, or a repair helper");
  return 0;
}

/// The segments of one connection by a raw socket, which is only made where there are any. Never throws: what is not delivered the peer
/// sends again.
UniqueFd thaw_with(tcpmig_frozen& frozen, std::span<const CapturedSegment> captured,
                   tcpmig::Deliver deliver) {
  const std::uint64_t own = frozen.frozen->cookie();
  const bool any = std::ranges::any_of(captured, [own](const auto& segment) {
    return segment.cookie == 0 || segment.cookie == own;
  });
  if (!any) return frozen.frozen->thaw({}, {});
  try {
    if (!deliver) deliver = tcpmig::raw_delivery(frozen.snapshot.shown->local);
  } catch (const std::exception&) {
    return frozen.frozen->thaw({}, {});
  }
  return frozen.frozen->thaw(captured, deliver);
}

}  // namespace

extern "C" {

int tcpmig_freeze(tcpmig_kit* kit, int fd, int scope, const void* consumed,
                  std::size_t consumed_size, void** unread, std::size_t* unread_size,
                  tcpmig_frozen** frozen) noexcept {
  if (frozen == nullptr) return refuse("frozen");
  *frozen = nullptr;
  if (const int error = refuse_freeze_arguments(kit, scope, unread, unread_size)) return error;
  if (unread != nullptr) *unread = nullptr;
  if (unread_size != nullptr) *unread_size = 0;
  if (tcpmig::capi::lacks_bytes(consumed, consumed_size)) return refuse("consumed");
  return guarded([&] {
    const auto given = tcpmig::capi::bytes_of(consumed, consumed_size);
    auto made = std::make_unique<tcpmig_frozen>();
    made->kit = kit;
    made->scope = scope == TCPMIG_WHOLE ? Scope::kWhole : Scope::kRequest;
    Bytes bytes(given.begin(), given.end());
    auto result = tcpmig::try_freeze(UniqueFd(fd), std::move(bytes), kit->kit, made->scope);
    if (!result) {
      FreezeRefused& refused = result.error();
      static_cast<void>(refused.fd.release());  // it is the caller's
      const auto read = std::span<const std::byte>(refused.consumed).subspan(consumed_size);
      if (!read.empty()) {
        *unread = tcpmig::capi::copy_for_caller(read);
        *unread_size = read.size();
      }
      return fail(refused.error, refused.reason.c_str());
    }
    made->frozen = std::move(*result);
    made->snapshot.shown = &made->frozen->snapshot();
    *frozen = made.release();
    return 0;
  });
}

int tcpmig_settle(tcpmig_frozen* frozen) noexcept {
  if (frozen == nullptr) return refuse("frozen");
  if (frozen->phase != Phase::kFrozen) return fail_as_ended();
  return guarded([&] {
    frozen->snapshot.own = *frozen->snapshot.shown;
    frozen->snapshot.shown = &frozen->snapshot.own;
    auto settled = tcpmig::settle(std::move(*frozen->frozen), frozen->kit->kit);
    if (!settled) {
      FreezeRefused& refused = settled.error();
      frozen->loose = std::move(refused.fd);
      frozen->phase = Phase::kLoose;
      frozen->frozen.reset();
      if (frozen->scope == Scope::kRequest)
        frozen->snapshot.own.received = std::move(refused.consumed);
      return fail(refused.error, refused.reason.c_str());
    }
    frozen->frozen = std::move(*settled);
    frozen->snapshot.shown = &frozen->frozen->snapshot();
    return 0;
  });
}

int tcpmig_late(const tcpmig_frozen* frozen, void** bytes, std::size_t* size, int* ended) noexcept {
  if (frozen == nullptr) return refuse("frozen");
  if (bytes == nullptr || size == nullptr || ended == nullptr) return refuse("bytes, size, ended");
  *bytes = nullptr;
  *size = 0;
  *ended = 0;
  if (frozen->phase != Phase::kFrozen) return fail_as_ended();
  return guarded([&] {
    const Bytes late = frozen->frozen->late_bytes();
    const bool fin = frozen->frozen->late_fin();
    *bytes = tcpmig::capi::copy_for_caller(late);
    *size = late.size();
    *ended = fin ? 1 : 0;
    return !late.empty() || fin ? 1 : 0;
  });
}

const tcpmig_snapshot* tcpmig_frozen_snapshot(const tcpmig_frozen* frozen) noexcept {
  return frozen != nullptr ? &frozen->snapshot : nullptr;
}

int tcpmig_frozen_fd(const tcpmig_frozen* frozen) noexcept {
  if (frozen == nullptr) return refuse("frozen");
  return frozen->phase == Phase::kFrozen ? frozen->frozen->fd() : fail_as_ended();
}

std::uint64_t tcpmig_cookie(const tcpmig_frozen* frozen) noexcept {
  return frozen != nullptr && frozen->frozen ? frozen->frozen->cookie() : 0;
}

int tcpmig_commit(tcpmig_frozen* frozen) noexcept {
  if (frozen == nullptr) return refuse("frozen");
  if (frozen->phase != Phase::kFrozen) return fail_as_ended();
  frozen->frozen->commit();
  frozen->phase = Phase::kEnded;
  return 0;
}

int tcpmig_thaw(tcpmig_frozen* frozen, const tcpmig_captures* captures, tcpmig_deliver_fn deliver,
                void* context) noexcept {
  if (frozen == nullptr) return refuse("frozen");
  if (frozen->phase == Phase::kEnded) return fail_as_ended();
  return guarded([&] {
    if (frozen->phase == Phase::kFrozen) {
      std::span<const CapturedSegment> captured;
      if (captures != nullptr) captured = captures->segments;
      frozen->loose = thaw_with(*frozen, captured, tcpmig::capi::to_deliver(deliver, context));
    }
    frozen->phase = Phase::kEnded;
    return frozen->loose.release();
  });
}

void tcpmig_frozen_free(tcpmig_frozen* frozen) noexcept { delete frozen; }

}  // extern "C"
