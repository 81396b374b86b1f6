// SPDX-License-Identifier: MIT
#include "conn/repair_mode.hpp"

#include <linux/tcp.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include "conn/socket_option.hpp"
#include "sys/unique_fd.hpp"

namespace tcpmig::conn {

void enter_repair(int fd) {
  set_option(fd, IPPROTO_TCP, TCP_REPAIR, int{TCP_REPAIR_ON}, "setsockopt TCP_REPAIR on");
}

void leave_repair(int fd, bool ask) {
  const int off = ask ? TCP_REPAIR_OFF : TCP_REPAIR_OFF_NO_WP;
  set_option(fd, IPPROTO_TCP, TCP_REPAIR, off, "setsockopt TCP_REPAIR off");
}

RepairVisit::RepairVisit(int fd)
    : fd_(fd),
      reuse_address_(get_option<int>(fd, SOL_SOCKET, SO_REUSEADDR, "getsockopt SO_REUSEADDR")) {
  enter_repair(fd);
}

RepairVisit::~RepairVisit() {
  if (fd_ < 0) return;
  const int off = TCP_REPAIR_OFF_NO_WP;
  ::setsockopt(fd_, IPPROTO_TCP, TCP_REPAIR, &off, sizeof(off));
  if (reuse_address_ != 0)
    ::setsockopt(fd_, SOL_SOCKET, SO_REUSEADDR, &reuse_address_, sizeof(reuse_address_));
}

bool may_repair() noexcept {
  const sys::UniqueFd probe(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  const int on = TCP_REPAIR_ON;
  return probe && ::setsockopt(probe.get(), IPPROTO_TCP, TCP_REPAIR, &on, sizeof(on)) == 0;
}

}  // namespace tcpmig::conn
