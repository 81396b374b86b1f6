// SPDX-License-Identifier: MIT
#include <array>

#include "sim/world.hpp"

namespace tcpmig::sim {

RandomChooser::RandomChooser(std::uint64_t seed) : state_(seed * 0x9e3779b97f4a7c15U) {
  constexpr std::array<unsigned, 7> kFaultEvery{0, 1, 2, 4, 8, 16, 32};
  constexpr std::array<unsigned, 5> kKillEvery{2, 8, 16, 32, 64};
  fault_every_ = kFaultEvery.at(pick(kFaultEvery.size()));
  constexpr std::array<unsigned, 6> kFavourite{0, 0, 0, 0, 1, 4};  // none, lost, late
  kill_every_ = kKillEvery.at(pick(kKillEvery.size()));
  quiet_ = pick(2) * pick(24);
  favourite_ = kFavourite.at(pick(kFavourite.size()));
}

/// splitmix64 (Steele, Lea, Flood, 2014): nothing to set up, for a run is short.
std::uint64_t RandomChooser::draw() {
  std::uint64_t z = state_ += 0x9e3779b97f4a7c15U;
  z = (z ^ (z >> 30U)) * 0xbf58476d1ce4e5b9U;
  z = (z ^ (z >> 27U)) * 0x94d049bb133111ebU;
  return z ^ (z >> 31U);
}

unsigned RandomChooser::fault(unsigned n) {
  if (quiet_ > 0) {
    --quiet_;
    return 0;
  }
  if (fault_every_ == 0 || pick(fault_every_) != 0) return 0;
  return favourite_ != 0 && favourite_ < n ? favourite_ : 1 + pick(n - 1);
}

Victim RandomChooser::victim() {
  return pick(kill_every_) != 0 ? Victim::kNobody : static_cast<Victim>(1 + pick(kVictims));
}

unsigned AllChoices::choose(unsigned n, Budget& budget) {
  if (budget.made == budget.all) return 0;
  ++budget.made;
  if (at_ == path_.size()) path_.push_back({0, n});
  return path_[at_++].taken;
}

void AllChoices::begin() { at_ = picks_.made = faults_.made = sequels_.made = step_ = packet_ = 0; }

bool AllChoices::next() {
  while (!path_.empty() && path_.back().taken + 1 == path_.back().of) path_.pop_back();
  if (path_.empty()) return false;
  ++path_.back().taken;
  return true;
}

}  // namespace tcpmig::sim
