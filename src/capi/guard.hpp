// SPDX-License-Identifier: MIT
#pragma once
#include <cerrno>
#include <span>
#include <string>

#include <tcpmig.h>
#include <tcpmig/resume.hpp>

/// Between C and C++: exceptions become -errno, and their words what tcpmig_last_error() says.
namespace tcpmig::capi {

/// Returns -error and keeps `text` for tcpmig_last_error() of this thread (cut at 511 bytes).
int fail(int error, const char* text) noexcept;
/// The same for the exception that is being handled.
int fail_by_exception() noexcept;
/// "NAME: must not be null", ..
int refuse(const char* argument, const char* what = "must not be null") noexcept;

/// Calls `body`; whatever it throws ends here.
template <typename Body>
auto guarded(Body&& body) noexcept -> decltype(body()) {
  try {
    return body();
  } catch (...) {
    return fail_by_exception();
  }
}

/// Bytes as C passes them. A null with size 0 is none.
inline std::span<const std::byte> bytes_of(const void* bytes, std::size_t size) noexcept {
  return {static_cast<const std::byte*>(bytes), size};
}
inline bool lacks_bytes(const void* bytes, std::size_t size) noexcept {
  return bytes == nullptr && size != 0;
}

/// A copy for tcpmig_free(); null for none. Throws std::bad_alloc.
void* copy_for_caller(std::span<const std::byte> bytes);

/// What a caller gives as the way of packets to `local`; its failure is thrown. Empty for null.
Deliver to_deliver(tcpmig_deliver_fn deliver, void* context);

}  // namespace tcpmig::capi
