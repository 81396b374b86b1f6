// SPDX-License-Identifier: MIT
#pragma once
#include <cstdint>

#include "config/config.hpp"
#include "shared/switch_maps.h"

/// Which clients wait for a node that will never answer them, and when that is certain. Pure functions of what the tables say and of the
/// time: `switch run` and the simulator of the tests decide by the same code.
namespace tcpmig::steering {

/// A flow that was given to somebody who has not said a word, for longer than a sender that lives is busy with any transfer.
bool is_caught(const abi::flow_value& flow, const config::Timeouts& timeouts, std::uint64_t now_ns);

/// The owner of a caught flow is asked whether it has it, a few times.
class Question {
 public:
  enum class Step : std::uint8_t {
    kOver,  ///< it has spoken, or moved on
    kWait,
    kAsk,
    kReap,  ///< nobody has it
  };
  Question(abi::flow_owner owner, std::uint64_t now_ns) : owner_(owner), next_ns_(now_ns) {}

  /// `flow`: as it is now; nullptr: there is none any more. After kOver and kReap the question is over; kAsk says that it is asked
  /// now.
  Step step(const abi::flow_value* flow, const config::Timeouts& timeouts, std::uint64_t now_ns);
  [[nodiscard]] abi::flow_owner owner() const noexcept { return owner_; }

 private:
  abi::flow_owner owner_;
  int times_ = 0;
  std::uint64_t next_ns_;
};

/// The clients of a dispatcher that has died before `before_ns`: those bound to it whose connection nobody else owns, and those whose
/// flow it had taken back.
bool is_left_behind(const abi::affinity_value& bound, config::NodeId dispatcher,
                    std::uint64_t before_ns);
bool is_left_behind(const abi::flow_value& flow, config::NodeId dispatcher,
                    std::uint64_t before_ns);

}  // namespace tcpmig::steering
