// SPDX-License-Identifier: MIT
#include "e2e/rst_counter.hpp"

#include <arpa/inet.h>
#include <linux/filter.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <net/if.h>
#include <sys/socket.h>

#include "sys/check.hpp"
#include "sys/netns.hpp"

namespace tcpmig::e2e {
namespace {

// SOCK_DGRAM: offsets count from the IP header. No IP options or extension headers in the lab.
sock_filter kRstOnly[] = {
    BPF_STMT(BPF_LD | BPF_B | BPF_ABS, 0),             // version and header length
    BPF_STMT(BPF_ALU | BPF_RSH | BPF_K, 4),            //
    BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, 4, 0, 4),      // IPv4?
    BPF_STMT(BPF_LD | BPF_B | BPF_ABS, 9),             // protocol
    BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, 6, 0, 8),      // TCP?
    BPF_STMT(BPF_LD | BPF_B | BPF_ABS, 20 + 13),       // flags
    BPF_JUMP(BPF_JMP | BPF_JSET | BPF_K, 0x04, 5, 6),  // RST?
    BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, 6, 0, 5),      // IPv6?
    BPF_STMT(BPF_LD | BPF_B | BPF_ABS, 6),             // next header
    BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, 6, 0, 3),      // TCP?
    BPF_STMT(BPF_LD | BPF_B | BPF_ABS, 40 + 13),       // flags
    BPF_JUMP(BPF_JMP | BPF_JSET | BPF_K, 0x04, 0, 1),  // RST?
    BPF_STMT(BPF_RET | BPF_K, 64),                     // keep
    BPF_STMT(BPF_RET | BPF_K, 0),
};

}  // namespace

RstCounter::RstCounter(const std::string& netns) {
  const sys::EnterNetns inside(netns);
  fd_.reset(sys::check("packet socket",
                       ::socket(AF_PACKET, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0)));
  const sock_fprog program{sizeof kRstOnly / sizeof kRstOnly[0], kRstOnly};
  sys::check("SO_ATTACH_FILTER",
             ::setsockopt(fd_.get(), SOL_SOCKET, SO_ATTACH_FILTER, &program, sizeof program));
  const int size = 4 << 20;
  ::setsockopt(fd_.get(), SOL_SOCKET, SO_RCVBUFFORCE, &size, sizeof size);
  sockaddr_ll address{};
  address.sll_family = AF_PACKET;
  address.sll_protocol = htons(ETH_P_ALL);
  address.sll_ifindex = static_cast<int>(::if_nametoindex("eth0"));
  sys::check("bind packet socket",
             ::bind(fd_.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address));
}

std::uint64_t RstCounter::count() {
  char packet[64];
  sockaddr_ll from{};
  socklen_t length = sizeof from;
  while (::recvfrom(fd_.get(), packet, sizeof packet, 0, reinterpret_cast<sockaddr*>(&from),
                    &length) > 0)
    if (from.sll_pkttype != PACKET_OUTGOING) ++count_;
  return count_;
}

}  // namespace tcpmig::e2e
