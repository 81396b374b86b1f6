// SPDX-License-Identifier: MIT
#include "conn/repair_mode.hpp"

#include <linux/tcp.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include "conn/repair_helper.hpp"
#include "conn/socket_option.hpp"
#include "sys/unique_fd.hpp"

namespace tcpmig::conn {

namespace {

void set_repair(int fd, int mode, RepairOperation operation, const char* what,
                std::chrono::milliseconds patience) {
  if (::setsockopt(fd, IPPROTO_TCP, TCP_REPAIR, &mode, sizeof mode) == 0) return;
  if (errno != EPERM) sys::check(what, -1);
  ask_helper({.operation = operation}, fd, what, patience);
}

}  // namespace

void enter_repair(int fd, std::chrono::milliseconds patience) {
  set_repair(fd, TCP_REPAIR_ON, RepairOperation::kEnter, "setsockopt TCP_REPAIR on", patience);
}

void leave_repair(int fd, bool ask, std::chrono::milliseconds patience) {
  set_repair(fd, ask ? TCP_REPAIR_OFF : TCP_REPAIR_OFF_NO_WP,
             ask ? RepairOperation::kLeaveAndAsk : RepairOperation::kLeave,
             "setsockopt TCP_REPAIR off", patience);
}

bool is_in_repair(int fd) noexcept {
  int repair = 0;
  socklen_t length = sizeof repair;
  return ::getsockopt(fd, IPPROTO_TCP, TCP_REPAIR, &repair, &length) == 0 && repair != 0;
}

RepairVisit::RepairVisit(int fd)
    : fd_(fd),
      reuse_address_(get_option<int>(fd, SOL_SOCKET, SO_REUSEADDR, "getsockopt SO_REUSEADDR")) {
  enter_repair(fd);
}

RepairVisit::~RepairVisit() {
  if (fd_ < 0) return;
  try {
    leave(kLongHelperPatience);
  } catch (const std::system_error&) {  // only where a helper has to do it: is_in_repair() says so
  }
}

void RepairVisit::leave(std::chrono::milliseconds patience) {
  leave_repair(fd_, false, patience);
  if (reuse_address_ != 0)
    ::setsockopt(fd_, SOL_SOCKET, SO_REUSEADDR, &reuse_address_, sizeof(reuse_address_));
  fd_ = -1;
}

RepairRight repair_right() {
  const sys::UniqueFd probe(sys::check("socket", ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)));
  const int on = TCP_REPAIR_ON;
  if (::setsockopt(probe.get(), IPPROTO_TCP, TCP_REPAIR, &on, sizeof on) == 0)
    return RepairRight::kOwn;
  if (errno != EPERM) return RepairRight::kNone;
  enter_repair(probe.get());
  return RepairRight::kHelpers;
}

}  // namespace tcpmig::conn
