// SPDX-License-Identifier: MIT
#pragma once
#include <cstddef>
#include <cstdint>

/// BPF maps for programs that are compiled for the host: the very code that runs in the kernel, in the simulator.
extern "C" {

/// Makes a map known by the address of its BPF definition. Arrays have zeroed elements from the start.
void host_map_define(const void* map, std::size_t key_size, std::size_t value_size,
                     std::size_t max_entries, bool array);
void* host_map_lookup(void* map, const void* key);
/// As bpf_map_update_elem(): 0 or -errno.
long host_map_update(void* map, const void* key, const void* value, std::uint64_t flags);
long host_map_delete(void* map, const void* key);
/// Empties every map that is no array.
void host_maps_clear();
/// The clock that bpf_ktime_get_ns() shows.
std::uint64_t host_now_ns();
void host_set_now_ns(std::uint64_t now);
}
