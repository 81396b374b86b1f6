// SPDX-License-Identifier: MIT
#pragma once
#include <cstddef>
#include <cstdint>
#include <expected>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <stdexcept>
#include <string>
#include <vector>

#include <tcpmig/snapshot.hpp>
#include <tcpmig/unique_fd.hpp>

namespace tcpmig {

/// The connection has a property that cannot be carried (state, unacknowledged data, urgent data, ULP, MPTCP, ..). Nothing was changed.
class Unsupported : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

/// What a freeze takes up with.
enum class Scope : std::uint8_t {
  /// A request that has come, and nothing said yet: ESTABLISHED or CLOSE_WAIT, nothing unsent or unacknowledged. Everything else is
  /// Unsupported. What is still in the socket is read: a thawed connection has it in snapshot().received.
  kRequest,
  /// Every state of TcpState, the send queue, and what the application has set on its socket. Nothing is read from the socket: a thawed
  /// connection is as it was (but that a segment which was about to be sent may wait for its retransmission). While it is frozen the kernel sends
  /// nothing new, for the peer's window counts as shut; what its timers repeat has an old timestamp, so that the peer drops it.
  kWhole,
};

/// A TCP segment of the peer that arrived while a socket was locked: header and data, as received (network order). TCP has not seen it:
/// its checksum may be wrong.
struct CapturedSegment {
  std::uint64_t cookie = 0;      ///< of the socket (SO_COOKIE)
  std::vector<std::byte> bytes;  ///< TCP header and data
};

/// The BPF programs that freeze() works with, loaded once for a process (or one for each event loop):
///  - lock: a socket filter that drops, unacknowledged, what arrives, and copies it into a ring buffer;
///  - dump: a cgroup/getsockopt program that reads tcp_sock in one call;
///  - window: a sockops program that keeps what is acknowledged unread below 32 KB (RWND_INIT, SO_RCVBUF), window scale kept.
/// dump and window need the process in a cgroup v2 of its own: the kit makes it (kits of the same name share it), and the
/// destructor of the last one moves the process back and removes it. A socket belongs for good to the cgroup that its maker was in, and
/// an accepted one to its listener's: so make the kit before the listener; other connections are dumped by the plain recipe.
class FreezeKit {
 public:
  struct Options {
    bool use_dump_program = true;  ///< false: the plain getsockopt recipe
    std::string cgroup_name;       ///< empty: no cgroup: no dump program, no window program
    bool keep_window_small = true;
  };
  explicit FreezeKit(const Options& options);
  ~FreezeKit();
  FreezeKit(const FreezeKit&) = delete;
  FreezeKit& operator=(const FreezeKit&) = delete;

  [[nodiscard]] bool has_lock() const noexcept;
  [[nodiscard]] bool has_dump_program() const noexcept;
  [[nodiscard]] bool keeps_window_small() const noexcept;
  /// What is missing and what that costs, one sentence each; empty = everything works.
  [[nodiscard]] const std::vector<std::string>& warnings() const noexcept;

  /// Readable when captures wait (for an event loop); -1 when has_lock() is false.
  [[nodiscard]] int captures_fd() const noexcept;
  /// Hands over every capture that waits. Returns how many.
  int consume_captures(const std::function<void(CapturedSegment)>& take);
  /// Segments that the lock dropped because the ring buffer was full (the client sends them again).
  [[nodiscard]] std::uint64_t captures_lost() const;

  // used by freeze()
  [[nodiscard]] int lock_program_fd() const noexcept;  ///< -1: none
  [[nodiscard]] bool may_repair()
      const noexcept;  ///< CAP_NET_ADMIN, or a repair helper, was there when the kit was made
  [[nodiscard]] bool repairs_by_helper() const noexcept;  ///< the latter

 private:
  struct State;
  std::unique_ptr<State> state_;
};

/// A frozen connection: locked, dumped. Destroyed without commit() or thaw() it thaws: the lock is taken off and the descriptor closed
/// like any other (where a duplicate exists, the connection lives on). Data already consumed stays consumed: it is in snapshot().received.
class Frozen {
 public:
  Frozen(Frozen&&) noexcept;
  Frozen& operator=(Frozen&&) noexcept;
  ~Frozen();

  [[nodiscard]] const Snapshot& snapshot() const noexcept;
  [[nodiscard]] int fd() const noexcept;
  [[nodiscard]] std::uint64_t cookie() const noexcept;

  /// After the new owner has confirmed and a grace period (see membarrier(2), MEMBARRIER_CMD_GLOBAL: an RCU grace period) has
  /// passed: bytes that the lock let through after the dump. Empty = none. Their first byte has the number snapshot().rcv_nxt. They are
  /// looked at, not consumed: after thaw() they can still be read.
  [[nodiscard]] std::vector<std::byte> late_bytes() const;
  /// The same for the peer's FIN (its number is that after the late bytes) or RST: the connection is not ESTABLISHED any more.
  [[nodiscard]] bool late_fin() const;

  /// The end of the connection here, without a packet: TCP_REPAIR on, lock kept, close. Never throws.
  void commit() noexcept;
  /// Gives the connection back, unlocked, with the descriptor. The captured segments (given by the caller, in order) are put back
  /// through `inject` (a function that gives one whole IP packet to the kernel as if received; a TUN device, or raw_delivery() of resume.hpp). Segments of other
  /// sockets (cookie), and damaged ones, are left out. What inject does not deliver the client sends again; what it throws (std::exception) counts as that.
  /// May be called once, and not after commit(). Throws std::system_error only where a repair helper has to leave repair mode and has not answered for 3 s:
  /// the connection is frozen as before then, and may be thawed when the helper is there again.
  UniqueFd thaw(std::span<const CapturedSegment> captured,
                const std::function<void(std::span<const std::byte>)>& inject);

 private:
  friend struct FreezeAccess;
  Frozen();
  struct State;
  std::unique_ptr<State> state_;
};

/// Freezes a connection, as far as `scope` allows (otherwise Unsupported; the descriptor is given back by the
/// exception-safe overload below). Of no scope: urgent data, an upper layer protocol (kTLS), MPTCP; TCP-MD5 and TCP-AO, accurate ECN
/// (which only the dump program sees). Not of kWhole besides: SO_PEEK_OFF, sends of SO_ZEROCOPY that are not acknowledged, data of the peer after a gap: try
/// again when the gap is filled. (Of a request, data after a gap is left out: the peer sends it again.) `consumed`: bytes the caller has read and that
/// the new owner shall read again; what is still in the socket follows it. Throws Unsupported or std::system_error; then the connection is unlocked and `fd` is closed by its owner: so
/// use try_freeze where the connection must survive.
Frozen freeze(UniqueFd fd, std::vector<std::byte> consumed, const FreezeKit& kit,
              Scope scope = Scope::kRequest);

/// The same without losing anything on refusal: the descriptor, the bytes consumed so far and the reason come back.
struct FreezeRefused {
  UniqueFd fd;
  std::vector<std::byte> consumed;
  std::string
      reason;  ///< ends with "still in repair mode" where a repair helper was gone just then: nobody can use `fd` but to close it
  int error = 0;  ///< errno: EOPNOTSUPP for Unsupported, else what the system call said
};
std::expected<Frozen, FreezeRefused> try_freeze(UniqueFd fd, std::vector<std::byte> consumed,
                                                const FreezeKit& kit,
                                                Scope scope = Scope::kRequest);

/// Waits until no packet can slip past the lock any more (an RCU grace period, membarrier(2): some 10 ms), and where one has (6 of 60,000 freezes of
/// busy connections) freezes anew: then the snapshot is final, and late_bytes() and late_fin() have nothing to say. Refused: the
/// connection is thawed, nothing is lost.
std::expected<Frozen, FreezeRefused> settle(Frozen frozen, const FreezeKit& kit);

}  // namespace tcpmig
