// SPDX-License-Identifier: MIT
#include "dispatcher/leftovers.hpp"

#include <linux/bpf.h>  // the TCP states

#include <algorithm>

#include "sys/sock_diag.hpp"

namespace tcpmig::dispatcher {
namespace {

constexpr std::uint32_t kEnding =
    1U << BPF_TCP_FIN_WAIT1 | 1U << BPF_TCP_LAST_ACK | 1U << BPF_TCP_CLOSING;
constexpr unsigned kInVain = 2;  ///< repetitions of a FIN, 200 and 400 ms apart at least

/// A FIN counts as one byte.
bool waits_for_its_fin(const sys::SocketInfo& socket) {
  return (1U << socket.state & kEnding) != 0 && socket.inode == 0 && socket.send_queue == 1;
}

}  // namespace

Leftovers::Leftovers(const std::vector<sys::Prefix>& blocks)
    : diag_(std::make_unique<sys::SockDiag>()) {
  diag_->for_each(kEnding, [&](const sys::SocketInfo& socket) {
    const bool ours = std::ranges::any_of(blocks, [&](const sys::Prefix& block) {
      return block.address.is_set() && block.contains(socket.local.address);
    });
    if (ours && waits_for_its_fin(socket))
      suspects_.push_back({socket.local, socket.peer, socket.cookie});
  });
}

Leftovers::~Leftovers() = default;

bool Leftovers::sweep() {
  std::erase_if(suspects_, [&](const Suspect& suspect) {
    const auto now = diag_->find(suspect.local, suspect.peer);
    if (!now || now->cookie != suspect.cookie || !waits_for_its_fin(*now)) return true;
    if (now->retransmits < kInVain) return false;
    diag_->destroy(*now);
    return true;
  });
  return !suspects_.empty();
}

}  // namespace tcpmig::dispatcher
