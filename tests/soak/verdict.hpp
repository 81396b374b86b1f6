// SPDX-License-Identifier: MIT
#pragma once
#include <map>
#include <mutex>
#include <string>
#include <vector>

#include "lab/lab.hpp"
#include "soak/chaos.hpp"
#include "soak/clients.hpp"
#include "sys/bpf.hpp"

/// Whose fault a failed connection is.
namespace tcpmig::soak {

/// A failure is excused when a process that had the connection was ended in its life:
///  - its dispatcher, as long as the transfer may not have been confirmed, or for a relayed one;
///  - any dispatcher, where it never had an owner and the switch has taken its binding away;
///  - the agent of its server, while no byte of a reply had come (docs/architecture.md, "What
///    outlives what");
///  - for an answer 502, 503 or 504, the agent of any server: the dispatcher says then that it knows
///    nothing of one.
/// Wrong bytes and mixed replies are never.
class Verdict {
 public:
  Verdict(const lab::Lab& lab, const Chaos& chaos);
  void judge(const Failure& failure);  ///< at once: it asks the switch's maps

  struct Totals {
    std::map<std::string, unsigned> excused;  ///< "reset: dispatcher killed" -> how many
    std::map<std::string, unsigned> by_how;   ///< all failures
    unsigned unexcused = 0;
    unsigned wrong = 0, mixed = 0;
    unsigned hung = 0;               ///< never excused
    std::vector<std::string> words;  ///< the first unexcused ones
  };
  [[nodiscard]] Totals totals() const;

 private:
  struct Known;  ///< what the switch's maps say of the flow
  [[nodiscard]] Known look_up(const Failure& failure) const;
  [[nodiscard]] std::string excuse(const Failure& failure, const Known& known) const;
  [[nodiscard]] std::string in_words(const Failure& failure, const Known& known) const;

  const lab::Lab& lab_;
  const Chaos& chaos_;
  sys::PinDirectory pins_;
  mutable std::mutex mutex_;
  Totals totals_;
};

}  // namespace tcpmig::soak
