// SPDX-License-Identifier: MIT
#include "sys/sock_diag.hpp"

#include <linux/bpf.h>  // the TCP states, which <linux/tcp.h> lacks and <netinet/tcp.h> has together with a rival tcp_info
#include <linux/inet_diag.h>
#include <linux/sock_diag.h>

#include <algorithm>
#include <cstring>

#include "sys/netlink_message.hpp"

namespace tcpmig::sys {
namespace {

constexpr std::uint32_t kAllStates = ~0U;
constexpr std::uint8_t kRetransmitTimer = 1;  // idiag_timer, see sock_diag(7)

Endpoint endpoint(int family, const __be32* address, __be16 port) {
  if (family == AF_INET) return {Address::from_v4({.s_addr = address[0]}), ntohs(port)};
  in6_addr v6{};
  std::memcpy(&v6, address, sizeof v6);
  return {Address::from_v6(v6), ntohs(port)};
}

::tcp_info parse_tcp_info(const nlattr& attribute) {
  ::tcp_info info{};
  std::memcpy(&info, mnl_attr_get_payload(&attribute),
              std::min<std::size_t>(sizeof info, mnl_attr_get_payload_len(&attribute)));
  return info;
}

SocketInfo parse(const nlmsghdr& message) {
  const auto& header = *static_cast<const inet_diag_msg*>(mnl_nlmsg_get_payload(&message));
  const inet_diag_sockid& id = header.id;
  SocketInfo info{.local = endpoint(header.idiag_family, id.idiag_src, id.idiag_sport),
                  .peer = endpoint(header.idiag_family, id.idiag_dst, id.idiag_dport),
                  .state = header.idiag_state,
                  .recv_queue = header.idiag_rqueue,
                  .send_queue = header.idiag_wqueue,
                  .inode = header.idiag_inode,
                  .cookie = std::uint64_t{id.idiag_cookie[1]} << 32 | id.idiag_cookie[0],
                  .retransmits = header.idiag_timer == kRetransmitTimer ? header.idiag_retrans : 0U,
                  .tcp = {}};
  for_each_attribute(message, sizeof header, [&](int type, const nlattr& attribute) {
    if (type == INET_DIAG_INFO) info.tcp = parse_tcp_info(attribute);
  });
  return info;
}

inet_diag_req_v2& header_of(NetlinkRequest& request, int family) {
  auto& header = request.header<inet_diag_req_v2>();
  header.sdiag_family = static_cast<__u8>(family);
  header.sdiag_protocol = IPPROTO_TCP;
  header.idiag_states = kAllStates;
  return header;
}

void put_endpoint(const Endpoint& from, __be32 (&address)[4], __be16& port) {
  const in_addr v4 = from.address.v4();
  const in6_addr v6 = from.address.v6();
  if (from.address.is_ipv4())
    std::memcpy(address, &v4, sizeof v4);
  else
    std::memcpy(address, &v6, sizeof v6);
  port = htons(from.port);
}

/// One exact socket. AF_INET finds the v4-mapped ones of IPv6 sockets too: they stand in the same
/// hash chains.
inet_diag_req_v2& put_socket(NetlinkRequest& request, const Endpoint& local, const Endpoint& peer,
                             std::uint64_t cookie) {
  auto& header = header_of(request, local.address.family());
  put_endpoint(local, header.id.idiag_src, header.id.idiag_sport);
  put_endpoint(peer, header.id.idiag_dst, header.id.idiag_dport);
  header.id.idiag_cookie[0] = static_cast<__u32>(cookie);
  header.id.idiag_cookie[1] = static_cast<__u32>(cookie >> 32);
  return header;
}

constexpr std::uint64_t kAnyCookie = ~std::uint64_t{0};  // INET_DIAG_NOCOOKIE twice

std::string between(const Endpoint& local, const Endpoint& peer) {
  return "socket " + local.str() + " - " + peer.str();
}

}  // namespace

SockDiag::SockDiag()
    : fd_(open_netlink(NETLINK_SOCK_DIAG)), dump_fd_(open_netlink(NETLINK_SOCK_DIAG)) {}

/// Where no connection matches, the kernel answers with the listener.
std::optional<SocketInfo> SockDiag::find_either(const Endpoint& local, const Endpoint& peer,
                                                bool with_tcp_info) {
  if (local.address.is_ipv4() != peer.address.is_ipv4()) return {};
  NetlinkRequest request(SOCK_DIAG_BY_FAMILY, 0);
  auto& header = put_socket(request, local, peer, kAnyCookie);
  if (with_tcp_info) header.idiag_ext = 1 << (INET_DIAG_INFO - 1);
  std::optional<SocketInfo> found;
  const auto outcome = ask(fd_.get(), request, ++sequence_,
                           [&](const nlmsghdr& message) { found = parse(message); });
  if (outcome.error != 0 && outcome.error != ENOENT)
    succeeded("find " + between(local, peer), outcome);  // throws
  return found;
}

std::optional<SocketInfo> SockDiag::find(const Endpoint& local, const Endpoint& peer,
                                         bool with_tcp_info) {
  auto found = find_either(local, peer, with_tcp_info);
  if (found && (found->local != local || found->peer != peer)) return {};
  return found;
}

std::optional<SocketInfo> SockDiag::find_listener(const Endpoint& local, const Endpoint& peer) {
  auto found = find_either(local, peer, false);
  if (found && found->state != BPF_TCP_LISTEN) return {};
  return found;
}

bool SockDiag::destroy(const Endpoint& local, const Endpoint& peer) {
  // By its cookie: SOCK_DESTROY of a connection that is not there (any more) would end the
  // listener.
  const auto found = find(local, peer);
  return found && destroy(*found);
}

bool SockDiag::destroy(const SocketInfo& socket) {
  NetlinkRequest request(SOCK_DESTROY, 0);
  put_socket(request, socket.local, socket.peer, socket.cookie);
  return succeeded("destroy " + between(socket.local, socket.peer),
                   exchange(fd_.get(), request, ++sequence_), {ENOENT, ESTALE});
}

bool SockDiag::for_each(std::uint32_t states, const std::function<void(const SocketInfo&)>& visit) {
  bool whole = true;
  for (const int family : {AF_INET, AF_INET6}) {
    NetlinkRequest request(SOCK_DIAG_BY_FAMILY, NLM_F_DUMP);
    header_of(request, family).idiag_states = states;
    const auto outcome = exchange(dump_fd_.get(), request, ++sequence_,
                                  [&](const nlmsghdr& message) { visit(parse(message)); });
    whole = succeeded("list TCP sockets", outcome, {EINTR}) && whole;
  }
  return whole;
}

}  // namespace tcpmig::sys
