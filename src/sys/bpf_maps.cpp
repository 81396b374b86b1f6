// SPDX-License-Identifier: MIT
#include <bpf/libbpf.h>
#include <linux/bpf.h>
#include <spdlog/spdlog.h>

#include <cstdarg>
#include <cstdio>

#include "sys/bpf.hpp"
#include "sys/check.hpp"

namespace tcpmig::sys {
namespace {

int log_from_libbpf(libbpf_print_level /*level*/, const char* format, va_list arguments) {
  std::array<char, 1024> line{};
  const int length = std::vsnprintf(line.data(), line.size(), format, arguments);
  std::string_view text(line.data());
  while (text.ends_with('\n')) text.remove_suffix(1);
  spdlog::debug("{}", text);
  return length;
}

/// The kernel adds BPF_F_RDONLY_PROG to device maps by itself.
std::uint32_t asked_flags(const bpf_map_info& info) {
  const bool device_map = info.type == BPF_MAP_TYPE_DEVMAP || info.type == BPF_MAP_TYPE_DEVMAP_HASH;
  return device_map ? info.map_flags & ~static_cast<std::uint32_t>(BPF_F_RDONLY_PROG)
                    : info.map_flags;
}

bool is_same_layout(const bpf_map* map, const bpf_map_info& info) {
  return info.type == static_cast<std::uint32_t>(bpf_map__type(map)) &&
         info.key_size == bpf_map__key_size(map) && info.value_size == bpf_map__value_size(map) &&
         info.max_entries == bpf_map__max_entries(map) &&
         asked_flags(info) == bpf_map__map_flags(map);
}

bool is_kept(const bpf_map* map) { return !bpf_map__is_internal(map) && bpf_map__autocreate(map); }

}  // namespace

void route_libbpf_log() { libbpf_set_print(log_from_libbpf); }

void adopt_pinned_maps(bpf_object* object, const PinDirectory& pins) {
  bpf_map* map = nullptr;
  bpf_object__for_each_map(map, object) {
    if (!is_kept(map)) continue;
    const std::string name = bpf_map__name(map);
    const auto pinned = pins.open(name);
    if (!pinned) continue;
    if (is_same_layout(map, map_info(pinned->get()))) {
      check_errno("reuse pinned map " + name, bpf_map__reuse_fd(map, pinned->get()));
    } else {
      spdlog::warn("pinned map {} has another layout: it starts empty", name);
      pins.unpin(name);
    }
  }
}

void pin_maps(bpf_object* object, const PinDirectory& pins) {
  bpf_map* map = nullptr;
  bpf_object__for_each_map(map, object) {
    if (!is_kept(map)) continue;
    const std::string name = bpf_map__name(map);
    const int fd = check_errno("map " + name + " is not loaded", bpf_map__fd(map));
    const auto pinned = pins.open(name);
    if (!pinned || map_info(pinned->get()).id != map_info(fd).id) pins.pin(fd, name);
  }
}

}  // namespace tcpmig::sys
