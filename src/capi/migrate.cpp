// SPDX-License-Identifier: MIT
#include <tcpmig/migrate.hpp>

#include "capi/guard.hpp"

namespace {

using tcpmig::UniqueFd;
using tcpmig::capi::fail;
using tcpmig::capi::guarded;
using tcpmig::capi::refuse;

}  // namespace

extern "C" {

int tcpmig_migrate(int fd, const char* target, const void* blob, std::size_t size,
                   const char* agent) noexcept {
  if (target == nullptr) return refuse("target");
  if (tcpmig::capi::lacks_bytes(blob, size)) return refuse("blob");
  return guarded([&] {
    const tcpmig::MigrateOptions options{.agent = agent != nullptr ? agent : ""};
    auto result =
        tcpmig::migrate(UniqueFd(fd), target, tcpmig::capi::bytes_of(blob, size), options);
    if (result) return 0;
    static_cast<void>(result.error().fd.release());  // the caller's, as before
    return fail(result.error().error, result.error().reason.c_str());
  });
}

int tcpmig_take_connection(int unix_socket, int* fd, int* in_the_middle, void** blob,
                           std::size_t* size) noexcept {
  if (fd == nullptr) return refuse("fd");
  if (in_the_middle == nullptr) return refuse("in_the_middle");
  if (blob == nullptr || size == nullptr) return refuse("blob, size");
  *fd = -1;
  *in_the_middle = 0;
  *blob = nullptr;
  *size = 0;
  return guarded([&] {
    auto taken = tcpmig::take_any_connection(unix_socket);
    if (!taken) return 0;
    if (taken->blob) {
      *blob = tcpmig::capi::copy_for_caller(*taken->blob);
      *size = taken->blob->size();
      *in_the_middle = 1;
    }
    *fd = taken->fd.release();
    return 1;
  });
}

}  // extern "C"
