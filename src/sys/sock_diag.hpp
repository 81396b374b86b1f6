// SPDX-License-Identifier: MIT
#pragma once
#include <linux/tcp.h>

#include <cstdint>
#include <functional>
#include <optional>
#include <vector>

#include "sys/address.hpp"
#include "sys/unique_fd.hpp"

namespace tcpmig::sys {

/// One TCP socket as sock_diag(7) reports it.
struct SocketInfo {
  Endpoint local;
  Endpoint peer;
  std::uint8_t state = 0;  ///< TCP_ESTABLISHED ..
  std::uint32_t recv_queue =
      0;  ///< bytes not read by the application (for LISTEN: length of the accept queue)
  std::uint32_t send_queue = 0;  ///< bytes not acknowledged (for LISTEN: the backlog)
  std::uint32_t inode = 0;       ///< 0 = not accepted yet or orphaned
  std::uint64_t cookie = 0;
  unsigned retransmits = 0;  ///< of what is outstanding now
  std::optional<::tcp_info>
      tcp;  ///< as many bytes as the kernel gave, the rest zero; only when asked for
};

/// NETLINK_SOCK_DIAG in the network namespace of construction. Throws std::system_error on failure of the netlink itself.
class SockDiag {
 public:
  SockDiag();

  /// The connected socket with this four-tuple (TIME_WAIT included), or nullopt.
  std::optional<SocketInfo> find(const Endpoint& local, const Endpoint& peer,
                                 bool with_tcp_info = false);
  /// The listener that would take a connection with this four-tuple, one of several by SO_REUSEPORT as the kernel would choose; nullopt:
  /// there is none, or there is a connection. Unlike a list it does not walk the kernel's tables.
  std::optional<SocketInfo> find_listener(const Endpoint& local, const Endpoint& peer);
  /// Ends the socket without a packet being promised (SOCK_DESTROY; also removes TIME_WAIT). False: none there.
  /// ENOTSUP/EOPNOTSUPP (no CONFIG_INET_DIAG_DESTROY) throws.
  bool destroy(const Endpoint& local, const Endpoint& peer);
  /// This very socket, not one that has the same four-tuple by now.
  bool destroy(const SocketInfo& socket);
  /// Every TCP socket of both families in one of `states` (bit mask 1 << TCP_x). `visit` may call find() and destroy().
  /// The kernel walks its tables without stopping them, so a socket that was there all the time may be missing all the same: ask for that
  /// one with find(). False: the kernel says so itself (interrupted), much may be missing.
  bool for_each(std::uint32_t states, const std::function<void(const SocketInfo&)>& visit);

 private:
  std::optional<SocketInfo> find_either(const Endpoint& local, const Endpoint& peer,
                                        bool with_tcp_info);
  UniqueFd fd_;
  UniqueFd dump_fd_;
  std::uint32_t sequence_ = 0;
};

}  // namespace tcpmig::sys
