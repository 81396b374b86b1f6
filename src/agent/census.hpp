// SPDX-License-Identifier: MIT
#pragma once
#include <functional>
#include <optional>
#include <queue>
#include <vector>

#include "agent/flow.hpp"
#include "control/message.hpp"

namespace tcpmig::agent {

/// Which flow's socket is to be looked at when. It costs by the flows of this node and in small slices, where a list of sockets costs by
/// the table of the whole machine (the kernel walks each bucket of it, once for each family) and stops everything else meanwhile.
class Census {
 public:
  struct Subject {
    abi::flow_key flow{};
    control::Generation generation = 0;
    TimePoint since;  ///< when it was added
  };
  /// Looks, and says after what pause to look again; nullopt: never.
  using Look = std::function<std::optional<std::chrono::milliseconds>(const Subject&, TimePoint)>;

  /// A flow of this generation, to be looked at first at `due`. Every generation is a subject of its own, and one that is added twice is
  /// looked at twice.
  void add(const abi::flow_key& flow, control::Generation generation, TimePoint now, TimePoint due);
  /// All at once, for half of the time until that is done.
  void hasten(TimePoint now);

  [[nodiscard]] std::size_t subjects() const noexcept { return queue_.size(); }
  /// When run() has something to do.
  [[nodiscard]] TimePoint due() const;
  /// A slice of those that are due. `look` may add. A look that throws is tried again.
  void run(TimePoint now, const Look& look);

 private:
  struct Entry {
    TimePoint due;
    Subject subject;
    bool operator>(const Entry& other) const noexcept { return due > other.due; }
  };
  using Queue = std::priority_queue<Entry, std::vector<Entry>, std::greater<>>;
  Queue queue_;
  std::size_t hastened_ = 0;  ///< of those that were hastened, how many are left
  TimePoint next_slice_;
};

}  // namespace tcpmig::agent
