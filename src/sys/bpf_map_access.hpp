// SPDX-License-Identifier: MIT
// The templates that sys/bpf.hpp declares; included at its end.
#pragma once
#include <bpf/bpf.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstddef>
#include <cstring>
#include <type_traits>

#include "sys/bpf.hpp"
#include "sys/check.hpp"

namespace tcpmig::sys {
namespace detail {

/// Throws std::logic_error unless keys and values of the map have these sizes (the kernel writes as
/// many bytes as the map says, wherever they land). A per-CPU map never fits. Returns max_entries.
std::uint32_t check_map_layout(int map_fd, std::size_t key_size, std::size_t value_size);

/// The kernel's own ENOTSUPP, which libc does not know: no batches in maps of this type.
inline constexpr int kNotSupported = 524;

/// False: this map cannot be read in batches, and nothing was visited.
template <typename Key, typename Value, typename Visit>
bool for_each_batched(int map_fd, Visit& visit) {
  std::vector<Key> keys(256);
  std::vector<Value> values(keys.size());
  // Where to go on: a bucket number for hash maps, a key for others. Opaque to us.
  std::array<std::byte, std::max(sizeof(Key), sizeof(std::uint64_t))> place{};
  void* from = nullptr;
  for (;;) {
    auto count = static_cast<std::uint32_t>(keys.size());
    auto next = place;
    const int result = bpf_map_lookup_batch(map_fd, from, next.data(), keys.data(), values.data(),
                                            &count, nullptr);
    if (from == nullptr && (result == -kNotSupported || result == -EOPNOTSUPP)) return false;
    if (result == -ENOSPC) {  // one bucket holds more than there is room for: again, with more
      keys.resize(keys.size() * 2);
      values.resize(keys.size());
      continue;
    }
    if (result != -ENOENT) check_errno("read a BPF map in batches", result);
    for (std::uint32_t i = 0; i < count; ++i) visit(keys[i], values[i]);
    if (result == -ENOENT) return true;  // this was the last batch
    place = next;
    from = place.data();
  }
}

/// All keys first: a key deleted under us would send the kernel back to the beginning.
template <typename Key>
std::vector<Key> all_keys(int map_fd, std::uint32_t most) {
  std::vector<Key> keys;
  const Key* previous = nullptr;
  for (Key key{}; keys.size() < most; previous = &keys.back()) {
    const int result = bpf_map_get_next_key(map_fd, previous, &key);
    if (result == -ENOENT) break;
    check_errno("walk a BPF map", result);
    keys.push_back(key);
  }
  return keys;
}

}  // namespace detail

template <typename Value, typename Key>
std::optional<Value> map_lookup(int map_fd, const Key& key) {
  static_assert(std::is_trivially_copyable_v<Value> && std::is_trivially_copyable_v<Key>);
  std::optional<Value> value(std::in_place);
  const int result = bpf_map_lookup_elem(map_fd, &key, &*value);
  if (result == -ENOENT) return std::nullopt;
  check_errno("read a BPF map", result);
  return value;
}

template <typename Key, typename Value>
void map_update(int map_fd, const Key& key, const Value& value, std::uint64_t flags) {
  static_assert(std::is_trivially_copyable_v<Value> && std::is_trivially_copyable_v<Key>);
  check_errno("write a BPF map", bpf_map_update_elem(map_fd, &key, &value, flags));
}

template <typename Key>
bool map_delete(int map_fd, const Key& key) {
  static_assert(std::is_trivially_copyable_v<Key>);
  const int result = bpf_map_delete_elem(map_fd, &key);
  if (result == -ENOENT) return false;
  check_errno("delete from a BPF map", result);
  return true;
}

template <typename Value>
std::vector<Value> map_lookup_percpu(int map_fd, std::uint32_t index) {
  static_assert(std::is_trivially_copyable_v<Value>);
  constexpr std::size_t kStride = (sizeof(Value) + 7) / 8 * 8;  // the kernel rounds up to 8 bytes
  std::vector<Value> values(static_cast<std::size_t>(possible_cpus()));
  std::vector<std::byte> raw(values.size() * kStride);
  check_errno("read a per-CPU BPF map", bpf_map_lookup_elem(map_fd, &index, raw.data()));
  for (std::size_t i = 0; i < values.size(); ++i)
    std::memcpy(&values[i], raw.data() + i * kStride, sizeof(Value));
  return values;
}

template <typename Key, typename Value, typename Visit>
void map_for_each(int map_fd, Visit&& visit) {
  static_assert(std::is_trivially_copyable_v<Value> && std::is_trivially_copyable_v<Key>);
  const std::uint32_t most = detail::check_map_layout(map_fd, sizeof(Key), sizeof(Value));
  if (detail::for_each_batched<Key, Value>(map_fd, visit)) return;
  for (const Key& key : detail::all_keys<Key>(map_fd, most))
    if (const auto value = map_lookup<Value>(map_fd, key)) visit(key, *value);
}

}  // namespace tcpmig::sys
