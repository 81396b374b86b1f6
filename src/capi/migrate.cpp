// SPDX-License-Identifier: MIT
#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <memory>
#include <utility>

#include <tcpmig/migrate.hpp>
#include <tcpmig/resume.hpp>

#include "capi/guard.hpp"
#include "conn/offer.hpp"

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
    // migrate() closes what is lost; here the number stays the caller's to close, whatever goes wrong
    UniqueFd copy(::fcntl(fd, F_DUPFD_CLOEXEC, 0));
    if (!copy) return fail(errno, "fd");
    const auto result =
        tcpmig::migrate(std::move(copy), target, tcpmig::capi::bytes_of(blob, size), options);
    if (!result) return fail(result.error().error, result.error().reason.c_str());
    ::close(fd);
    return 0;
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
    auto offer = tcpmig::conn::receive_offer(unix_socket);
    if (!offer) return 0;
    auto& [connection, client, bytes] = offer->connection;
    // before it is ours: what fails then lets somebody else have it
    std::unique_ptr<void, decltype(&tcpmig_free)> copy(
        bytes ? tcpmig::capi::copy_for_caller(*bytes) : nullptr, &tcpmig_free);
    if (!tcpmig::conn::take_offer(unix_socket, *offer)) return 0;
    if (bytes) {
      *blob = copy.release();
      *size = bytes->size();
      *in_the_middle = 1;
    }
    *fd = connection.release();
    return 1;
  });
}

}  // extern "C"
