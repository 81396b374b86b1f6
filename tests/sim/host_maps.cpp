// SPDX-License-Identifier: MIT
#include "sim/host_maps.hpp"

#include <cerrno>
#include <cstring>
#include <memory>
#include <unordered_map>
#include <vector>

namespace {

/// Small: the few entries of a hash are looked through one by one, and keep their places in memory for ever, for the programs
/// hold on to what they have looked up.
struct Map {
  std::size_t key_size = 0, value_size = 0, max_entries = 0;
  bool array = false;
  std::vector<char> keys;
  std::vector<bool> used;
  std::unique_ptr<std::uint64_t[]> values;

  [[nodiscard]] std::size_t words() const { return value_size / sizeof(std::uint64_t) + 1; }
  [[nodiscard]] std::uint64_t* value(std::size_t slot) const { return &values[slot * words()]; }
  /// max_entries: there is none.
  [[nodiscard]] std::size_t find(const void* key) const {
    if (array) {
      std::uint32_t index = 0;
      std::memcpy(&index, key, sizeof index);
      return index < max_entries ? index : max_entries;
    }
    for (std::size_t slot = 0; slot < max_entries; ++slot)
      if (used[slot] && std::memcmp(&keys[slot * key_size], key, key_size) == 0) return slot;
    return max_entries;
  }
};

std::unordered_map<const void*, Map>& maps() {
  static std::unordered_map<const void*, Map> all;
  return all;
}

std::uint64_t now_ns = 0;

}  // namespace

void host_map_define(const void* map, std::size_t key_size, std::size_t value_size,
                     std::size_t max_entries, bool array) {
  Map& made = maps()[map];
  made.key_size = key_size;
  made.value_size = value_size;
  made.max_entries = max_entries;
  made.array = array;
  made.values = std::make_unique<std::uint64_t[]>(max_entries * made.words());
  if (array) return;
  made.keys.assign(max_entries * key_size, 0);
  made.used.assign(max_entries, false);
}

void* host_map_lookup(void* map, const void* key) {
  const Map& in = maps().at(map);
  const std::size_t slot = in.find(key);
  return slot < in.max_entries ? in.value(slot) : nullptr;
}

long host_map_update(void* map, const void* key, const void* value, std::uint64_t flags) {
  constexpr std::uint64_t kNoExist = 1;  // BPF_NOEXIST
  Map& in = maps().at(map);
  std::size_t slot = in.find(key);
  if (slot < in.max_entries && flags == kNoExist) return -EEXIST;
  if (slot == in.max_entries) {
    if (in.array) return -E2BIG;
    slot = 0;
    while (slot < in.max_entries && in.used[slot]) ++slot;
    if (slot == in.max_entries) return -E2BIG;
    in.used[slot] = true;
    std::memcpy(&in.keys[slot * in.key_size], key, in.key_size);
  }
  std::memcpy(in.value(slot), value, in.value_size);
  return 0;
}

long host_map_delete(void* map, const void* key) {
  Map& in = maps().at(map);
  const std::size_t slot = in.find(key);
  if (in.array || slot == in.max_entries) return -ENOENT;
  in.used[slot] = false;
  return 0;
}

void host_maps_clear() {
  for (auto& [definition, map] : maps()) map.used.assign(map.used.size(), false);
}

std::uint64_t host_now_ns() { return now_ns; }
void host_set_now_ns(std::uint64_t now) { now_ns = now; }
