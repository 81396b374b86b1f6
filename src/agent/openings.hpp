// SPDX-License-Identifier: MIT
#pragma once
#include <functional>
#include <optional>

#include "agent/assembly.hpp"
#include "agent/confirmations.hpp"
#include "agent/endings.hpp"
#include "agent/tombstones.hpp"
#include "sys/sock_diag.hpp"
#include "sys/tun.hpp"

namespace tcpmig::agent {

/// Why a transfer is not opened here.
struct Refusal {
  abi::wire_reason reason = abi::REASON_NONE;
  std::uint32_t detail = 0;
};

/// Opens transfers through the TUN: those of several parts, and those whose four-tuple an old socket still has.
///
/// The first segment goes with `pending` to resume_tun, which gives it to the listener. It is small, so that any window takes it. What is left follows as
/// ordinary segments of the client, never more at a time than the child's window takes: progress is what the child has received (tcp_info),
/// so what it dropped is sent again, and the client, for which all of it is acknowledged, need not help.
class Openings {
 public:
  /// Everything that was received is in the child, or nothing more will be: it may be told, what is held may follow.
  using Complete = std::function<void(const abi::flow_key&)>;

  Openings(sys::Tun& tun, sys::SockDiag& diag, const Tombstones& tombstones, Endings& endings,
           int pending_map, std::chrono::milliseconds patience, Counters& counters,
           Complete complete)
      : tun_(tun),
        diag_(diag),
        tombstones_(tombstones),
        endings_(endings),
        pending_map_(pending_map),
        patience_(patience),
        counters_(counters),
        complete_(std::move(complete)) {}

  /// Writes the opening segment of a transfer whose tombstone is claimed. The child is there then, unless the backlog was full: to
  /// be looked for.
  std::optional<Refusal> open(Arrival arrival, TimePoint now);
  /// Bytes that the child will have received when everything is delivered; 0: the opening segment carries them all.
  [[nodiscard]] static std::uint32_t paced(const Arrival& arrival);
  /// A former run opened it and did not get to its end: goes on where the child stands.
  void take_up(Arrival arrival, TimePoint now);
  /// The child of a transfer has been seen. True: there is more to deliver, and Complete will be called; false: it is complete.
  bool begin(const abi::flow_key& flow, control::Generation generation, TimePoint now);
  /// More bytes that the client will not send again, for a transfer that is still being delivered. False: nothing is, or they do not
  /// follow what is there.
  bool append(const abi::flow_key& flow, control::Generation generation,
              std::span<const std::byte> segment);
  /// Forgets what is left of this transfer, or of an older one: its child did not come, or there is a newer one.
  void forget(const abi::flow_key& flow, control::Generation generation);
  [[nodiscard]] bool has(const abi::flow_key& flow) const { return deliveries_.contains(flow); }
  [[nodiscard]] std::size_t under_way() const noexcept { return deliveries_.size(); }

  /// Writes a client's TCP segment (header and data) as packets of this connection.
  bool inject(const sys::Endpoint& client, const sys::Endpoint& local,
              std::span<const std::byte> segment);
  /// Writes a packet as it is.
  void inject(std::span<const std::byte> packet);

  [[nodiscard]] TimePoint due() const;
  void run(TimePoint now);

 private:
  struct Delivery {
    Arrival arrival;
    std::size_t chunk = 0;  ///< what is tried next, bytes
    std::chrono::microseconds pause{0};
    TimePoint next = TimePoint::max();  ///< max: the child has not been seen yet
    TimePoint deadline;
  };
  std::optional<Refusal> write_opening(const Arrival& arrival, std::size_t first);
  void give_up(const Delivery& delivery, TimePoint now);
  /// True: done with it, one way or the other.
  bool deliver(Delivery& delivery, TimePoint now);
  bool inject_chunk(const Delivery& delivery, const ::tcp_info& child);

  sys::Tun& tun_;
  sys::SockDiag& diag_;
  const Tombstones& tombstones_;
  Endings& endings_;
  int pending_map_;
  std::chrono::milliseconds patience_;  ///< for a server that does not read
  Counters& counters_;
  Complete complete_;
  FlowMap<Delivery> deliveries_;
};

/// Ends what has the four-tuple of this transfer: a socket of an earlier connection, for this one is not open yet, and only transfers make
/// sockets with addresses of our block. A refusal when the kernel does not end it.
std::optional<Refusal> end_old_socket(sys::SockDiag& diag, const Tombstones& tombstones,
                                      const Arrival& arrival, Counters& counters);

}  // namespace tcpmig::agent
