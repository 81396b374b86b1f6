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
  Bytes received;      ///< the snapshot's received bytes
  sys::Endpoint from;  ///< where the answer goes
  TimePoint arrived;   ///< of the COMMIT
};

/// Puts the parts of transfers together (DATA, and the COMMIT that comes last). Bounded in number, bytes and time.
class Assembly {
 public:
  static constexpr std::size_t kMost = 1024;                ///< transfers under way
  static constexpr std::chrono::milliseconds kAskDelay{5};  ///< reordered parts have come by then

  explicit Assembly(std::chrono::milliseconds deadline) : deadline_(deadline) {}

  enum class Problem {
    kContradiction,  ///< the part does not fit what came before: ignored
    kTooMany,        ///< kMost transfers are under way
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
  /// To be asked for now: each COMMIT (also each repeat of it) is asked about once.
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
    std::vector<std::optional<Bytes>> parts;
    std::size_t present = 0;
    std::size_t bytes = 0;
    std::optional<abi::wire_header> commit;
    sys::Endpoint from;
    TimePoint committed;
    TimePoint deadline;
    bool asked = false;
  };
  Transfer* find_or_make(const abi::flow_key& flow, const abi::wire_header& header, TimePoint now);
  static bool put(Transfer& transfer, const control::Incoming& message);
  static Gap gap_of(const Transfer& transfer);

  std::chrono::milliseconds deadline_;
  FlowMap<Transfer> transfers_;
};

}  // namespace tcpmig::agent
