// SPDX-License-Identifier: MIT
#include "helper/operations.hpp"

#include <linux/bpf.h>  // the TCP states
#include <linux/sockios.h>
#include <net/if.h>
#include <netinet/in.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include <system_error>

#include "conn/endpoints.hpp"
#include "conn/raw_socket.hpp"
#include "conn/repair_mode.hpp"
#include "conn/segment.hpp"
#include "conn/socket_lock.hpp"
#include "conn/socket_option.hpp"
#include "sys/netlink.hpp"
#include "sys/sock_diag.hpp"

namespace tcpmig::helper {
namespace {

using conn::RepairOperation;
using conn::RepairRequest;

[[noreturn]] void refuse(int error) { throw std::system_error(error, std::generic_category()); }

/// SO_NETNS_COOKIE (Linux 5.14), else the inode of the namespace (SIOCGSKNS, with CAP_NET_ADMIN): always the same one on a machine.
std::uint64_t namespace_of(int fd) {
  std::uint64_t cookie = 0;
  socklen_t length = sizeof cookie;
  if (::getsockopt(fd, SOL_SOCKET, SO_NETNS_COOKIE, &cookie, &length) == 0) return cookie;
  if (errno != ENOPROTOOPT) sys::check("getsockopt SO_NETNS_COOKIE", -1);
  const sys::UniqueFd space(sys::check("ioctl SIOCGSKNS", ::ioctl(fd, SIOCGSKNS)));
  struct stat status{};
  sys::check("fstat", ::fstat(space.get(), &status));
  return status.st_ino;
}

std::uint64_t own_namespace() {
  const sys::UniqueFd fd(sys::check("socket", ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)));
  return namespace_of(fd.get());
}

sys::UniqueFd raw_socket_if_possible(bool ipv4) {
  try {
    return conn::open_raw_socket(ipv4);
  } catch (const std::system_error&) {  // no CAP_NET_RAW, or no IPv6 here
    return {};
  }
}

void require_tcp(int fd) {
  const int domain = conn::get_option<int>(fd, SOL_SOCKET, SO_DOMAIN, "getsockopt SO_DOMAIN");
  const int protocol = conn::get_option<int>(fd, SOL_SOCKET, SO_PROTOCOL, "getsockopt SO_PROTOCOL");
  const int type =
      conn::get_option<int>(fd, SOL_SOCKET, SO_TYPE, "getsockopt SO_TYPE");  // raw ones
  if ((domain != AF_INET && domain != AF_INET6) || protocol != IPPROTO_TCP || type != SOCK_STREAM)
    refuse(EPROTOTYPE);
}

/// Of TIME_WAIT alone: any other socket has an owner.
void end_time_wait(const RepairRequest& request) {
  sys::SockDiag diag;
  const auto socket = diag.find({Address::from_v6(request.local), request.local_port},
                                {Address::from_v6(request.peer), request.peer_port});
  if (!socket || socket->state != BPF_TCP_TIME_WAIT || !diag.destroy(*socket)) refuse(ENOENT);
}

}  // namespace

Operations::Operations(const Options& options)
    : options_(options),
      namespace_(own_namespace()),
      raw4_(raw_socket_if_possible(true)),
      raw6_(raw_socket_if_possible(false)) {}

/// Of the socket's own ends, whatever the asker says: so it hears of it, and nobody else. (In IPv6 a socket may have an address that is not of this
/// host: IPV6_FREEBIND takes no right.)
void Operations::tell_end(const RepairRequest& request, int fd) const {
  const conn::Endpoints ends = conn::dump_endpoints(fd);
  const auto route = sys::Netlink().route_to(ends.local.address);
  if (!route || route->oif != static_cast<int>(::if_nametoindex("lo"))) refuse(EADDRNOTAVAIL);
  const sys::UniqueFd& raw = ends.local.address.is_ipv4() ? raw4_ : raw6_;
  if (!raw) refuse(EPERM);
  conn::give_packets(ends.peer, ends.local, conn::made_up_end(request),
                     [&](auto packet) { conn::send_raw(raw.get(), ends.local.address, packet); });
}

void Operations::perform_or_throw(const RepairRequest& request, int fd) const {
  const int value = static_cast<int>(request.value);
  const auto set = [&](bool allowed, int name) {
    if (!allowed) refuse(EPERM);
    conn::set_option(fd, SOL_SOCKET, name, value, "setsockopt");
  };
  switch (request.operation) {
    case RepairOperation::kEnter:
      return conn::enter_repair(fd);
    case RepairOperation::kLeave:
      return conn::leave_repair(fd, false);
    case RepairOperation::kLeaveAndAsk:
      return conn::leave_repair(fd, true);
    case RepairOperation::kLock:
      return conn::SocketLock(fd, -1).keep();
    case RepairOperation::kSendBuffer:
      return set(request.value <= options_.most_buffer, SO_SNDBUFFORCE);
    case RepairOperation::kReceiveBuffer:
      return set(request.value <= options_.most_buffer, SO_RCVBUFFORCE);
    case RepairOperation::kMark:
      return set(options_.allow_mark, SO_MARK);
    case RepairOperation::kPriority:
      return set(options_.allow_priority, SO_PRIORITY);
    case RepairOperation::kEndTimeWait:
      return end_time_wait(request);
    case RepairOperation::kTellEnd:
      return tell_end(request, fd);
  }
  refuse(EOPNOTSUPP);  // a number that the asker made up
}

int Operations::perform(const RepairRequest& request, int fd) const noexcept {
  try {
    require_tcp(fd);
    if (namespace_of(fd) != namespace_) return EXDEV;
    perform_or_throw(request, fd);
    return 0;
  } catch (const std::system_error& error) {
    return error.code().value();
  } catch (const std::exception&) {
    return EIO;
  }
}

}  // namespace tcpmig::helper
