// SPDX-License-Identifier: MIT
#pragma once
#include <functional>
#include <optional>

#include "agent/counters.hpp"
#include "agent/flow.hpp"
#include "agent/tombstones.hpp"
#include "sys/sock_diag.hpp"

namespace tcpmig::agent {

/// A transfer that the kernel has taken, and who waits for our word on it.
struct Opened {
  abi::flow_key flow{};
  abi::wire_header question{};  ///< COMMIT, or the ABORT that came after it
  sys::Endpoint from;
  abi::wire_resumed stamps{};
  TimePoint when;
};

/// The kernel taking a transfer does not mean that a child exists: a full backlog drops it silently. So the socket is looked
/// for, again and again: soon given up where a backlog was full, after `patience` where the child may merely be late (a busy CPU has
/// its segment still in a queue).
///
/// "Not there" is not proof that there never was one: a child may have lived and died before we looked. Where the connection has
/// ended otherwise than by the server's RST, the guard has noted that the child was there. After a RST, answering REFUSED
/// then executes nothing twice all the same: such a child has spoken, the switch has seen it before our answer passed, and refuses to
/// give the flow to anybody else ("already spoken"), which the dispatcher takes as RESUMED. The switch is the judge, not we. And one that is
/// born after our answer is ended by the next census (Flows).
class Confirmations {
 public:
  static constexpr int kLooks = 4;                              ///< so many at least
  static constexpr std::chrono::microseconds kFirstPause{250};  ///< doubles: 250, 500, 1000 us ..
  static constexpr std::chrono::microseconds kLongestPause{32'000};

  using Found = std::function<void(const Opened&)>;
  using Absent = std::function<void(const Opened&, bool backlog_full)>;
  Confirmations(sys::SockDiag& diag, const Tombstones& tombstones, Counters& counters,
                std::chrono::milliseconds patience, Found found, Absent absent)
      : diag_(diag),
        tombstones_(tombstones),
        counters_(counters),
        patience_(patience),
        found_(std::move(found)),
        absent_(std::move(absent)) {}

  /// Looks at once; calls `found` or, in the end, `absent`.
  void look(const Opened& opened, TimePoint now);
  /// A question about a flow that is being looked for: its answer goes there instead. False: it is not.
  bool ask(const abi::flow_key& flow, const abi::wire_header& question, const sys::Endpoint& from);

  [[nodiscard]] TimePoint due() const;
  void run(TimePoint now);

 private:
  struct Search {
    Opened opened;
    int looks = 0;
    bool backlog_full = false;  ///< at one of the looks
    TimePoint give_up;
    TimePoint next;
    std::chrono::microseconds pause = kFirstPause;
  };
  /// True: answered.
  bool look(Search& search, TimePoint now);

  sys::SockDiag& diag_;
  const Tombstones& tombstones_;
  Counters& counters_;
  std::chrono::milliseconds patience_;
  Found found_;
  Absent absent_;
  std::vector<Search> searches_;
};

/// The accept queue of the listener that would have taken (client -> local) is full.
bool backlog_full(sys::SockDiag& diag, const sys::Endpoint& local);

}  // namespace tcpmig::agent
