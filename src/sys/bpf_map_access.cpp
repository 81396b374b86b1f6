// SPDX-License-Identifier: MIT
// Apart from bpf_maps.cpp, so that the library (include/tcpmig) does not need the log.
#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <linux/bpf.h>

#include <stdexcept>

#include "sys/bpf.hpp"
#include "sys/check.hpp"

namespace tcpmig::sys {

int possible_cpus() { return check_errno("count CPUs", libbpf_num_possible_cpus()); }

bpf_map_info map_info(int map_fd) {
  bpf_map_info info{};
  std::uint32_t length = sizeof info;
  check_errno("ask for BPF map info", bpf_obj_get_info_by_fd(map_fd, &info, &length));
  return info;
}

std::uint32_t detail::check_map_layout(int map_fd, std::size_t key_size, std::size_t value_size) {
  const bpf_map_info info = map_info(map_fd);
  const bool per_cpu = info.type == BPF_MAP_TYPE_PERCPU_HASH ||
                       info.type == BPF_MAP_TYPE_PERCPU_ARRAY ||
                       info.type == BPF_MAP_TYPE_LRU_PERCPU_HASH;
  if (per_cpu || info.key_size != key_size || info.value_size != value_size)
    throw std::logic_error("map " + std::string(info.name) +
                           " holds other keys or values than asked for");
  return info.max_entries;
}

}  // namespace tcpmig::sys
