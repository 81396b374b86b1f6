// SPDX-License-Identifier: MIT
#include <linux/bpf.h>
#include <linux/tcp.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include <cerrno>
#include <memory>
#include <new>
#include <optional>
#include <string>
#include <system_error>
#include <thread>
#include <utility>

#include <tcpmig/freeze.hpp>

#include "conn/dump.hpp"
#include "conn/grace_period.hpp"
#include "conn/queues.hpp"
#include "conn/repair_mode.hpp"
#include "conn/segment.hpp"
#include "conn/settings.hpp"
#include "conn/silent_visit.hpp"
#include "conn/socket_lock.hpp"
#include "conn/socket_option.hpp"
#include "sys/unique_fd.hpp"

namespace tcpmig {

using conn::Dump;
using conn::SocketLock;

struct Frozen::State {
  sys::UniqueFd fd;
  Scope scope{};
  SocketLock lock;  // after fd: taken off before the descriptor goes
  std::optional<conn::SilentVisit>
      silence;  // of a whole freeze, and by a helper: left before the lock is taken off
  Snapshot snapshot;
  std::size_t in_socket = 0;  // bytes of snapshot.received that are in the receive queue as well
  std::uint64_t cookie = 0;   // asked for when wanted: not between lock and snapshot
};

namespace {

/// Reading what is there can only be overtaken by a softirq that was past the lock already: two
/// rounds are rare.
constexpr int kRounds = 8;

/// A helper was gone just when it had to leave repair.
constexpr const char* kStillInRepair = ": the socket is still in repair mode";

Dump dump_once(int fd, const FreezeKit& kit) {
  if (kit.has_dump_program())
    if (const auto dump = conn::dump_by_program(fd)) return *dump;
  std::optional<conn::SilentVisit> silence;
  return conn::dump_by_repair(fd, silence);
}

/// Dumps, and takes what is still in the socket, until nothing is.
Dump dump_and_drain(int fd, std::vector<std::byte>& consumed, const FreezeKit& kit) {
  for (int round = 0; round < kRounds; ++round) {
    const Dump dump = dump_once(fd, kit);
    if (const auto reason = conn::refusal(dump.state, Scope::kRequest)) throw Unsupported(*reason);
    const Seq end = conn::end_of_received(dump.state), read{dump.state.copied_seq};
    if (!read.before(end)) return dump;  // after it: the reader has seen the end of the stream
    conn::read_received(fd, end.since(read), consumed);
  }
  throw Unsupported("data kept arriving at the locked socket");
}

/// -1: none, or a kernel that has none for TCP (before 6.9).
int peek_offset(int fd) {
  int offset = -1;
  socklen_t length = sizeof(offset);
  if (::getsockopt(fd, SOL_SOCKET, SO_PEEK_OFF, &offset, &length) < 0) {
    if (errno != EOPNOTSUPP) sys::check("getsockopt SO_PEEK_OFF", -1);
    return -1;
  }
  return offset;
}

bool sends_without_copying(int fd, const Dump& dump) {
  if (dump.settings) return (dump.settings->flags & abi::DUMP_ZEROCOPY) != 0;
  return conn::get_option<int>(fd, SOL_SOCKET, SO_ZEROCOPY, "getsockopt SO_ZEROCOPY") != 0;
}

void refuse_what_only_the_socket_knows(int fd, const Dump& dump) {
  if ((dump.settings ? dump.settings->peek_offset : peek_offset(fd)) >= 0)
    throw Unsupported("the application peeks by SO_PEEK_OFF");
  const bool in_flight = dump.state.snd_una != dump.state.write_seq;
  if (in_flight && sends_without_copying(fd, dump))
    throw Unsupported("the application sends without copying (SO_ZEROCOPY), and is not done");
}

void refuse_what_cannot_be_carried(int fd, const Dump& dump) {
  if (const auto reason = conn::refusal(dump.state, Scope::kWhole)) throw Unsupported(*reason);
  refuse_what_only_the_socket_knows(fd, dump);
}

/// For a whole freeze, in `silence` from then on.
Dump dump_in_silence(int fd, std::optional<conn::SilentVisit>& silence, const FreezeKit& kit) {
  auto known = kit.has_dump_program() ? conn::dump_by_program(fd, Scope::kWhole) : std::nullopt;
  Dump dump = known ? *known : conn::dump_by_repair(fd, silence);
  refuse_what_cannot_be_carried(fd, dump);
  if (known) {
    silence.emplace(fd);
    conn::take_window(silence->window(), dump.state);
    conn::dump_send_side(fd, dump.state);
    if ((dump.state.options & abi::WIRE_OPT_TIMESTAMPS) != 0)
      dump.state.tsval_now = silence->tsval();
  }
  return dump;
}

/// What is in the receive queue, in `silence` from then on; nothing is consumed.
Dump dump_and_peek(int fd, std::optional<conn::SilentVisit>& silence,
                   std::vector<std::byte>& received, const FreezeKit& kit) {
  for (int round = 0; round < kRounds; ++round) {
    const Dump dump = dump_in_silence(fd, silence, kit);
    const Seq end = conn::end_of_received(dump.state), read{dump.state.copied_seq};
    const std::uint32_t waiting = read.before(end) ? end.since(read) : 0;
    received = conn::peek_queue(fd, conn::Queue::kReceive, waiting);
    if (received.size() == waiting) return dump;
    silence.reset();
  }
  throw Unsupported("data kept arriving at the locked socket");
}

/// Distributes the send queue.
void add_send_queue(int fd, const Dump& dump, Snapshot& snapshot) {
  const std::uint32_t length = conn::end_of_written(dump.state).since(snapshot.snd_una);
  auto queue = conn::peek_queue(fd, conn::Queue::kSend, length);
  if (queue.size() != length)
    throw Unsupported("the send queue holds " + std::to_string(queue.size()) + " of " +
                      std::to_string(length) + " bytes");
  const auto sent = queue.begin() + snapshot.snd_nxt.since(snapshot.snd_una);
  snapshot.unsent.assign(sent, queue.end());
  queue.erase(sent, queue.end());
  snapshot.sent = std::move(queue);
}

}  // namespace

/// The only one that makes a Frozen. `fd` and `consumed` stay the caller's (with all that was read)
/// when it throws.
struct FreezeAccess {
  static Frozen freeze(sys::UniqueFd& fd, std::vector<std::byte>& consumed, const FreezeKit& kit,
                       Scope scope) {
    if (!kit.may_repair())
      throw Unsupported(
          "TCP_REPAIR is not permitted (CAP_NET_ADMIN, or a repair helper): the connection could "
          "not be ended silently");
    return scope == Scope::kWhole ? freeze_whole(fd, consumed, kit)
                                  : freeze_request(fd, consumed, kit);
  }

  /// Of `received`, what a second freeze would not find in the socket.
  static std::vector<std::byte> consumed_of(const Frozen& frozen) {
    std::vector<std::byte> consumed = frozen.snapshot().received;
    consumed.resize(consumed.size() - frozen.state_->in_socket);
    return consumed;
  }

  /// A refusal with the descriptor: thawed, unless the helper that it takes is gone.
  static FreezeRefused give_back(Frozen& frozen, std::string reason, int code) {
    std::vector<std::byte> consumed = consumed_of(frozen);
    UniqueFd fd;
    try {
      fd = frozen.thaw({}, {});
    } catch (const std::system_error& error) {
      reason += std::string("; ") + error.what() + kStillInRepair;
      frozen.state_->silence->stay();
      frozen.state_->lock.open();
      fd = std::move(frozen.state_->fd);
    }
    return {std::move(fd), std::move(consumed), std::move(reason), code};
  }

  /// The lock is off for a moment, so that the socket is dumped as a whole again.
  static std::expected<Frozen, FreezeRefused> freeze_again(Frozen& frozen, const FreezeKit& kit) {
    const Scope scope = frozen.state_->scope;
    std::vector<std::byte> consumed = consumed_of(frozen);
    return try_freeze(frozen.thaw({}, {}), std::move(consumed), kit, scope);
  }

 private:
  static Frozen freeze_request(sys::UniqueFd& fd, std::vector<std::byte>& consumed,
                               const FreezeKit& kit) {
    SocketLock lock(fd.get(), kit.lock_program_fd());
    const Dump dump = dump_and_drain(fd.get(), consumed, kit);
    std::unique_ptr<Frozen::State> state(new Frozen::State{.fd = {},
                                                           .scope = Scope::kRequest,
                                                           .lock = std::move(lock),
                                                           .silence = {},
                                                           .snapshot = {}});
    // At once, not in commit(): that a helper is gone must be found out while there is a way back.
    if (kit.repairs_by_helper()) state->silence.emplace(fd.get());
    state->snapshot = conn::to_snapshot(dump, std::move(consumed));
    state->fd = std::move(fd);
    Frozen frozen;
    frozen.state_ = std::move(state);
    return frozen;
  }

  static Frozen freeze_whole(sys::UniqueFd& fd, std::vector<std::byte>& consumed,
                             const FreezeKit& kit) {
    std::unique_ptr<Frozen::State> state(
        new Frozen::State{.fd = {},
                          .scope = Scope::kWhole,
                          .lock = SocketLock(fd.get(), kit.lock_program_fd()),
                          .silence = {},
                          .snapshot = {}});
    std::vector<std::byte> waiting;
    const Dump dump = dump_and_peek(fd.get(), state->silence, waiting, kit);
    state->in_socket = waiting.size();
    state->snapshot = conn::to_snapshot(dump, {});
    Snapshot& snapshot = state->snapshot;
    add_send_queue(fd.get(), dump, snapshot);
    const bool ipv6 = !snapshot.local.address.is_ipv4();
    snapshot.settings = dump.settings ? conn::dump_settings(fd.get(), ipv6, *dump.settings)
                                      : conn::dump_settings(fd.get(), ipv6);
    std::vector<std::byte> received;
    received.reserve(consumed.size() + waiting.size());
    received.insert(received.end(), consumed.begin(), consumed.end());
    received.insert(received.end(), waiting.begin(), waiting.end());
    snapshot.received = std::move(received);
    state->fd = std::move(fd);
    Frozen frozen;
    frozen.state_ = std::move(state);
    return frozen;
  }
};

Frozen freeze(sys::UniqueFd fd, std::vector<std::byte> consumed, const FreezeKit& kit,
              Scope scope) {
  return FreezeAccess::freeze(fd, consumed, kit, scope);
}

std::expected<Frozen, FreezeRefused> try_freeze(sys::UniqueFd fd, std::vector<std::byte> consumed,
                                                const FreezeKit& kit, Scope scope) {
  std::string reason;
  int code = EIO;
  const bool was_in_repair = kit.repairs_by_helper() && conn::is_in_repair(fd.get());
  try {
    return FreezeAccess::freeze(fd, consumed, kit, scope);
  } catch (const Unsupported& error) {
    reason = error.what();
    code = EOPNOTSUPP;
  } catch (const std::system_error& error) {
    reason = error.what();
    code = error.code().value();
  } catch (const std::bad_alloc&) {
    reason = "out of memory";
    code = ENOMEM;
  } catch (const std::exception& error) {
    reason = error.what();
  }
  if (kit.repairs_by_helper() && !was_in_repair && conn::is_in_repair(fd.get()))
    reason += kStillInRepair;
  return std::unexpected(
      FreezeRefused{std::move(fd), std::move(consumed), std::move(reason), code});
}

std::expected<Frozen, FreezeRefused> settle(Frozen frozen, const FreezeKit& kit) {
  std::string reason = "packets kept slipping past the lock";
  int code = EBUSY;
  try {
    for (int round = 0; round < kRounds; ++round) {
      if (!conn::wait_for_grace_period()) std::this_thread::sleep_for(conn::kInsteadOfGracePeriod);
      if (frozen.late_bytes().empty() && !frozen.late_fin()) return frozen;
      auto again = FreezeAccess::freeze_again(frozen, kit);
      if (!again) return again;
      frozen = std::move(*again);
    }
  } catch (const std::system_error& error) {
    reason = error.what();
    code = error.code().value();
  } catch (const std::exception& error) {
    reason = error.what();
    code = EIO;
  }
  return std::unexpected(FreezeAccess::give_back(frozen, std::move(reason), code));
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

std::vector<std::byte> Frozen::late_bytes() const {
  const int fd = state_->fd.get();
  if (!state_->silence) return conn::peek_received(fd);
  const std::size_t present = conn::dump_queue_lengths(fd).received;
  if (present <= state_->in_socket) return {};
  auto all = conn::peek_queue(fd, conn::Queue::kReceive, present);
  all.erase(all.begin(), all.begin() + static_cast<std::ptrdiff_t>(state_->in_socket));
  return all;
}

bool Frozen::late_fin() const {
  if (state_->snapshot.peer_closed()) return false;  // it is in the snapshot
  const auto info =
      conn::get_option<::tcp_info>(state_->fd.get(), IPPROTO_TCP, TCP_INFO, "getsockopt TCP_INFO");
  const auto state = to_tcp_state(info.tcpi_state);
  return !state || peer_has_closed(*state);
}

void Frozen::commit() noexcept {
  if (!state_ || !state_->fd) return;
  const int on = TCP_REPAIR_ON;
  if (state_->silence)  // and stays in repair
    state_->silence->stay();
  else
    ::setsockopt(state_->fd.get(), IPPROTO_TCP, TCP_REPAIR, &on, sizeof(on));
  state_->lock.keep();
  state_->fd.reset();
}

sys::UniqueFd Frozen::thaw(std::span<const CapturedSegment> captured,
                           const std::function<void(std::span<const std::byte>)>& inject) {
  const std::uint64_t own = cookie();
  if (state_->silence) state_->silence->end();
  state_->silence.reset();
  state_->lock.open();
  const Snapshot& snapshot = state_->snapshot;
  try {
    for (const CapturedSegment& segment : captured) {
      if (segment.cookie != 0 && segment.cookie != own) continue;
      if (!conn::is_intact(snapshot.peer, snapshot.local, segment.bytes)) continue;
      conn::give_packets(snapshot.peer, snapshot.local, segment.bytes, inject);
    }
  } catch (const std::exception&) {  // the peer sends it again; the descriptor must not be lost
  }
  return std::move(state_->fd);
}

}  // namespace tcpmig
