// SPDX-License-Identifier: MIT
#pragma once
#include <chrono>
#include <cstdint>
#include <random>
#include <string>
#include <vector>

/// What `tcpmig lab up --impair SPEC` asks for, and what it makes of one frame. Pure: no system call.
namespace tcpmig::lab {

/// "loss=1%,reorder=2%,duplicate=0.5%,delay=50ms,jitter=5ms,seed=7,links=clients+server1"
struct Impairment {
  double loss = 0, reorder = 0, duplicate = 0;  ///< 0..1, of the frames of one direction
  std::chrono::microseconds delay{};            ///< each way
  std::chrono::microseconds jitter{};           ///< the delay is delay +- jitter
  std::uint64_t seed = 1;
  std::vector<std::string> links{"all"};  ///< all, clients, nodes, or a node's name

  /// Does it concern the link between the switch and this node? The switch has none of its own: each
  /// of its ports leads to a bridge, and behind that to a node's link.
  [[nodiscard]] bool concerns(const std::string& node, const std::string& role) const;
  /// The same as text; what is zero is left out.
  [[nodiscard]] std::string str() const;
  bool operator==(const Impairment&) const = default;
};

/// Throws std::invalid_argument with one sentence that says what to write instead. Whether a node
/// that is named exists is not known here.
Impairment parse_impairment(const std::string& spec);

/// What becomes of a frame.
struct Fate {
  bool lost = false;
  bool doubled = false;
  std::chrono::microseconds delay{};  ///< never overtakes an earlier frame by itself
  std::chrono::microseconds held{};   ///< beyond that, while later frames pass; 0 = in its turn
};

/// One direction of one link. Which frame meets which fate depends on the seed, the link's name, the
/// direction and the frame's number, and on nothing else.
class Dice {
 public:
  Dice(const Impairment& impairment, const std::string& direction);
  Fate next();

 private:
  double between_0_and_1();
  Impairment impairment_;
  std::mt19937_64 random_;
};

}  // namespace tcpmig::lab
