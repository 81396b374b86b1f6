// SPDX-License-Identifier: MIT
#include <linux/bpf.h>
#include <linux/tcp.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include <utility>

#include <tcpmig/freeze.hpp>

#include "conn/dump.hpp"
#include "conn/queues.hpp"
#include "conn/segment.hpp"
#include "conn/socket_lock.hpp"
#include "conn/socket_option.hpp"

namespace tcpmig {

using conn::Dump;
using conn::SocketLock;

struct Frozen::State {
  sys::UniqueFd fd;
  SocketLock lock;  // after fd: taken off before the descriptor goes
  Snapshot snapshot;
  std::uint64_t cookie = 0;  // asked for when wanted: not between lock and snapshot
};

namespace {

/// Reading what is there can only be overtaken by a softirq that was past the lock already: two
/// rounds are rare.
constexpr int kRounds = 8;

Dump dump_once(int fd, const FreezeKit& kit) {
  if (kit.has_dump_program())
    if (const auto dump = conn::dump_by_program(fd)) return *dump;
  return conn::dump_by_repair(fd);
}

/// Dumps, and takes what is still in the socket, until nothing is.
Dump dump_and_drain(int fd, std::vector<std::byte>& consumed, const FreezeKit& kit) {
  for (int round = 0; round < kRounds; ++round) {
    const Dump dump = dump_once(fd, kit);
    if (const auto reason = conn::refusal(dump.state)) throw Unsupported(*reason);
    const Seq end = conn::end_of_received(dump.state), read{dump.state.copied_seq};
    if (!read.before(end)) return dump;  // after it: the reader has seen the end of the stream
    conn::read_received(fd, end.since(read), consumed);
  }
  throw Unsupported("data kept arriving at the locked socket");
}

}  // namespace

/// The only one that makes a Frozen. `fd` and `consumed` stay the caller's (with all that was read)
/// when it throws.
struct FreezeAccess {
  static Frozen freeze(sys::UniqueFd& fd, std::vector<std::byte>& consumed, const FreezeKit& kit) {
    if (!kit.may_repair())
      throw Unsupported(
          "TCP_REPAIR is not permitted (CAP_NET_ADMIN): the connection could not be ended "
          "silently");
    SocketLock lock(fd.get(), kit.lock_program_fd());
    const Dump dump = dump_and_drain(fd.get(), consumed, kit);
    Frozen frozen;
    frozen.state_.reset(new Frozen::State{
        .fd = std::move(fd),
        .lock = std::move(lock),
        .snapshot = conn::to_snapshot(dump, std::move(consumed)),
    });
    return frozen;
  }
};

Frozen freeze(sys::UniqueFd fd, std::vector<std::byte> consumed, const FreezeKit& kit) {
  return FreezeAccess::freeze(fd, consumed, kit);
}

std::expected<Frozen, FreezeRefused> try_freeze(sys::UniqueFd fd, std::vector<std::byte> consumed,
                                                const FreezeKit& kit) {
  std::string reason;
  try {
    return FreezeAccess::freeze(fd, consumed, kit);
  } catch (const std::runtime_error& error) {  // Unsupported, std::system_error
    reason = error.what();
  }
  return std::unexpected(FreezeRefused{std::move(fd), std::move(consumed), std::move(reason)});
}

Frozen::Frozen() = default;
Frozen::Frozen(Frozen&&) noexcept = default;
Frozen& Frozen::operator=(Frozen&&) noexcept = default;
Frozen::~Frozen() = default;

const Snapshot& Frozen::snapshot() const noexcept { return state_->snapshot; }
int Frozen::fd() const noexcept { return state_ ? state_->fd.get() : -1; }

std::uint64_t Frozen::cookie() const noexcept {
  if (!state_) return 0;
  if (state_->cookie == 0 && state_->fd) {
    socklen_t length = sizeof(state_->cookie);
    ::getsockopt(state_->fd.get(), SOL_SOCKET, SO_COOKIE, &state_->cookie, &length);
  }
  return state_->cookie;
}

std::vector<std::byte> Frozen::late_bytes() const { return conn::peek_received(state_->fd.get()); }

bool Frozen::late_fin() const {
  if (state_->snapshot.peer_closed) return false;  // it is in the snapshot
  const auto info =
      conn::get_option<::tcp_info>(state_->fd.get(), IPPROTO_TCP, TCP_INFO, "getsockopt TCP_INFO");
  return info.tcpi_state != BPF_TCP_ESTABLISHED;
}

void Frozen::commit() noexcept {
  if (!state_ || !state_->fd) return;
  const int on = TCP_REPAIR_ON;
  ::setsockopt(state_->fd.get(), IPPROTO_TCP, TCP_REPAIR, &on, sizeof(on));
  state_->lock.keep();
  state_->fd.reset();
}

sys::UniqueFd Frozen::thaw(std::span<const CapturedSegment> captured,
                           const std::function<void(std::span<const std::byte>)>& inject) {
  const std::uint64_t own = cookie();
  state_->lock.open();
  for (const CapturedSegment& segment : captured) {
    const Snapshot& snapshot = state_->snapshot;
    if (segment.cookie != 0 && segment.cookie != own) continue;
    if (!conn::is_intact(snapshot.peer, snapshot.local, segment.bytes)) continue;
    conn::give_packets(snapshot.peer, snapshot.local, segment.bytes, inject);
  }
  return std::move(state_->fd);
}

}  // namespace tcpmig
