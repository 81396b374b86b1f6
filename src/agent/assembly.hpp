// SPDX-License-Identifier: MIT
#pragma once
#include <chrono>
#include <cstddef>
#include <expected>
#include <optional>
#include <span>

#include "agent/flow.hpp"
#include "control/message.hpp"

namespace tcpmig::agent {

/// A transfer that reached the agent whole.
struct Arrival {
  abi::flow_key flow{};
  abi::wire_header commit{};
  Bytes received;      ///< the snapshot's received bytes; of a whole connection: its payload
  sys::Endpoint from;  ///< where the answer goes
  TimePoint arrived;   ///< of the COMMIT
  [[nodiscard]] bool is_whole() const noexcept {
    return (commit.flags & abi::WIRE_FLAG_WHOLE) != 0;
  }
};

/// Puts the parts of transfers together (DATA, and the COMMIT that comes last). Bounded in number, bytes and time.
class Assembly {
 public:
  static constexpr std::size_t kMost = 1024;  ///< transfers under way
  static constexpr std::size_t kMostBytes =
      256U << 20;  ///< that they announce, and take for it, all together
  static constexpr std::size_t kMostAsked = 512;            ///< parts asked for in one message
  static constexpr std::chrono::milliseconds kAskDelay{5};  ///< reordered parts have come by then

  explicit Assembly(std::chrono::milliseconds deadline) : deadline_(deadline) {}

  enum class Problem {
    kContradiction,  ///< the part does not fit what came before: ignored
    kTooMany,        ///< kMost transfers are under way, or kMostBytes
  };
  /// Takes COMMIT or DATA. The whole transfer, once its last part is there; nullopt until then.
  std::expected<std::optional<Arrival>, Problem> add(const abi::flow_key& flow,
                                                     const control::Incoming& message,
                                                     const sys::Endpoint& from, TimePoint now);

  /// A COMMIT some of whose parts have not come.
  struct Gap {
    abi::wire_header commit{};
    sys::Endpoint from;
    std::vector<std::uint16_t> missing;
  };
  /// To be asked for now: each COMMIT (also each repeat of it) is asked about once, and again when parts have come since.
  std::vector<Gap> gaps(TimePoint now);
  /// Forgets what is past its deadline; gives those that had a COMMIT, for they wait for an answer.
  std::vector<Gap> expire(TimePoint now);
  /// Forgets a flow's transfer of this or an older generation.
  void drop(const abi::flow_key& flow, control::Generation generation);

  [[nodiscard]] bool has(const abi::flow_key& flow) const { return transfers_.contains(flow); }
  [[nodiscard]] std::size_t under_way() const noexcept { return transfers_.size(); }

 private:
  struct Transfer {
    control::Generation generation = 0;
    std::uint32_t total_length = 0;
    std::size_t cost = 0;
    std::vector<std::optional<Bytes>> parts;
    std::size_t present = 0;
    std::size_t bytes = 0;
    std::optional<abi::wire_header> commit;
    sys::Endpoint from;
    TimePoint committed;
    TimePoint deadline;
    bool whole = false;
    bool asked = false;
    std::size_t present_when_asked = 0;
    TimePoint asked_at;
  };
  Transfer* find_or_make(const abi::flow_key& flow, const abi::wire_header& header, TimePoint now);
  void erase(FlowMap<Transfer>::iterator transfer);
  static bool put(Transfer& transfer, const control::Incoming& message);
  static std::size_t cost_of(const abi::wire_header& header);
  [[nodiscard]] bool is_full(const abi::wire_header& header) const;
  static Gap gap_of(const Transfer& transfer);

  std::chrono::milliseconds deadline_;
  FlowMap<Transfer> transfers_;
  std::size_t announced_ = 0;  ///< bytes
};

}  // namespace tcpmig::agent
