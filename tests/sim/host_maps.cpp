// SPDX-License-Identifier: MIT
#include "sim/host_maps.hpp"

#include <cerrno>
#include <cstring>
#include <map>
#include <memory>
#include <string>
#include <unordered_map>
#include <vector>

namespace {

struct Map {
  std::size_t key_size = 0, value_size = 0, max_entries = 0;
  std::vector<std::uint64_t> elements;                              // of an array
  std::map<std::string, std::unique_ptr<std::uint64_t[]>> entries;  // of a hash; addresses stay

  [[nodiscard]] std::size_t words() const { return value_size / sizeof(std::uint64_t) + 1; }
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
  if (array) made.elements.assign(max_entries * made.words(), 0);
}

void* host_map_lookup(void* map, const void* key) {
  Map& in = maps().at(map);
  if (!in.elements.empty()) {
    std::uint32_t index = 0;
    std::memcpy(&index, key, sizeof index);
    return index < in.max_entries ? &in.elements[index * in.words()] : nullptr;
  }
  const auto found = in.entries.find(std::string(static_cast<const char*>(key), in.key_size));
  return found == in.entries.end() ? nullptr : found->second.get();
}

long host_map_update(void* map, const void* key, const void* value, std::uint64_t flags) {
  constexpr std::uint64_t kNoExist = 1;  // BPF_NOEXIST
  Map& in = maps().at(map);
  void* place = host_map_lookup(map, key);
  if (place != nullptr && flags == kNoExist) return -EEXIST;
  if (place == nullptr) {
    if (in.entries.size() >= in.max_entries) return -E2BIG;
    const std::string name(static_cast<const char*>(key), in.key_size);
    place = (in.entries[name] = std::make_unique<std::uint64_t[]>(in.words())).get();
  }
  std::memcpy(place, value, in.value_size);
  return 0;
}

long host_map_delete(void* map, const void* key) {
  Map& in = maps().at(map);
  const std::string name(static_cast<const char*>(key), in.key_size);
  return in.entries.erase(name) == 1 ? 0 : -ENOENT;
}

void host_maps_clear() {
  for (auto& [definition, map] : maps()) map.entries.clear();
}

std::uint64_t host_now_ns() { return now_ns; }
void host_set_now_ns(std::uint64_t now) { now_ns = now; }
