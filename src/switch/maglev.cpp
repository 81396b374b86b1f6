// SPDX-License-Identifier: MIT
#include "switch/maglev.hpp"

#include <algorithm>

namespace tcpmig::steering {
namespace {

/// splitmix64 (Steele, Lea, Flood 2014): a good mix of a small number.
std::uint64_t mix(std::uint64_t x) {
  x += 0x9e3779b97f4a7c15;
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9;
  x = (x ^ (x >> 27)) * 0x94d049bb133111eb;
  return x ^ (x >> 31);
}

/// The order in which one backend wants the slots: offset, offset + skip, .. modulo a prime visits
/// each once.
struct Preference {
  std::uint32_t backend;
  std::uint64_t next;
  std::uint64_t skip;
};

}  // namespace

std::vector<std::uint32_t> maglev_table(std::vector<std::uint32_t> backends, std::size_t size) {
  std::sort(backends.begin(), backends.end());
  backends.erase(std::unique(backends.begin(), backends.end()), backends.end());
  std::vector<std::uint32_t> table(size, 0);
  if (backends.empty()) return table;
  std::vector<Preference> preferences;
  for (const std::uint32_t backend : backends)
    preferences.push_back({backend, mix(backend) % size, mix(mix(backend)) % (size - 1) + 1});
  std::vector<bool> taken(size, false);
  for (std::size_t filled = 0;
       ;) {  // the backends take turns: each takes the first free slot of its order
    for (Preference& preference : preferences) {
      while (taken[preference.next]) preference.next = (preference.next + preference.skip) % size;
      taken[preference.next] = true;
      table[preference.next] = preference.backend;
      if (++filled == size) return table;
    }
  }
}

}  // namespace tcpmig::steering
