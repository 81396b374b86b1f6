// SPDX-License-Identifier: MIT
#pragma once
#include <deque>

#include "agent/counters.hpp"
#include "agent/flow.hpp"
#include "agent/tombstones.hpp"
#include "sys/sock_diag.hpp"
#include "sys/tun.hpp"

namespace tcpmig::agent {

/// Ends connections so that the client hears of it.
///
/// A RST is sent once and never again (RFC 9293 3.10.7). Where an application ends its connection that way, that is what TCP does; where
/// an agent does, for what was acknowledged to the client and is lost, a client that only listens would wait for ever if that one packet
/// got lost. So the kernel is given an acknowledgement of the client again, a few times: it has no socket, and the kernel answers by RST.
class Endings {
 public:
  Endings(sys::Tun& tun, sys::SockDiag& diag, const Tombstones& tombstones, Counters& counters)
      : tun_(tun), diag_(diag), tombstones_(tombstones), counters_(counters) {}

  /// Ends this child of the flow's tombstone. `child` with tcp_info, as it was just now: what it has sent gives the sequence
  /// number at which the client takes the RST. False: it had ended.
  bool end(const abi::flow_key& flow, const sys::SocketInfo& child, TimePoint now);

  /// The same for a connection that has ended here without a packet. `snd_nxt`: what the client may expect next; a client that expects something
  /// else says so, and hears it then.
  void tell(const abi::flow_key& flow, const sys::Endpoint& local, std::uint32_t generation,
            std::uint32_t snd_nxt, TimePoint now);
  /// Not before `when`: until then somebody else may still take the connection.
  void tell_later(const abi::flow_key& flow, const sys::Endpoint& local, std::uint32_t generation,
                  std::uint32_t snd_nxt, TimePoint when);
  /// Its client is being told: whatever it says is answered by the kernel's RST.
  [[nodiscard]] bool is_ending(const abi::flow_key& flow, TimePoint now) const;

  [[nodiscard]] TimePoint due() const;  ///< TimePoint::max(): nothing is to be repeated
  void run(TimePoint now);

 private:
  struct Ended {
    abi::flow_key flow{};
    sys::Endpoint local;
    std::uint32_t generation = 0;
    std::uint32_t snd_nxt = 0;  ///< of the child
    unsigned repeats = 0;
    TimePoint next;
    TimePoint since;
  };
  void repeat(const Ended& ended);

  sys::Tun& tun_;
  sys::SockDiag& diag_;
  const Tombstones& tombstones_;
  Counters& counters_;
  std::deque<Ended> ended_;
};

}  // namespace tcpmig::agent
