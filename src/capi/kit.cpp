// SPDX-License-Identifier: MIT
// Kits and captures.
#include <bpf/libbpf.h>

#include <memory>
#include <mutex>
#include <string>
#include <string_view>

#include <tcpmig/repair_helper.hpp>

#include "capi/guard.hpp"
#include "capi/handles.hpp"

namespace {

using tcpmig::capi::fail;
using tcpmig::capi::guarded;
using tcpmig::capi::refuse;

bool is_cgroup_name(std::string_view name) {
  return !name.empty() && name.size() <= 255 && name.find('/') == std::string_view::npos &&
         name != "." && name != "..";
}

/// libbpf says on stderr what fails; a library does not, and the kit's warnings say it as well.
class QuietLibbpf {
 public:
  QuietLibbpf() : guard_(mutex()), previous_(libbpf_set_print(nullptr)) {}
  ~QuietLibbpf() { libbpf_set_print(previous_); }
  QuietLibbpf(const QuietLibbpf&) = delete;
  QuietLibbpf& operator=(const QuietLibbpf&) = delete;

 private:
  static std::mutex& mutex() {
    static std::mutex only;
    return only;
  }
  std::lock_guard<std::mutex> guard_;
  libbpf_print_fn_t previous_;
};

}  // namespace

extern "C" {

int tcpmig_set_repair_helper(const char* path) noexcept {
  return guarded([&] {
    tcpmig::set_repair_helper(path != nullptr ? path : "");
    return 0;
  });
}

int tcpmig_kit_new(const char* cgroup_name, std::uint32_t flags, tcpmig_kit** kit) noexcept {
  if (kit == nullptr) return refuse("kit");
  *kit = nullptr;
  if ((flags & ~std::uint32_t{TCPMIG_KIT_SMALL_WINDOW | TCPMIG_KIT_NO_DUMP_PROGRAM}) != 0)
    return refuse("flags", "a flag that is not known");
  if (cgroup_name != nullptr && !is_cgroup_name(cgroup_name))
    return refuse("cgroup_name", "must be a plain name of at most 255 bytes");
  if (cgroup_name == nullptr && (flags & TCPMIG_KIT_SMALL_WINDOW) != 0)
    return refuse("flags", "TCPMIG_KIT_SMALL_WINDOW takes a cgroup");
  return guarded([&] {
    const tcpmig::FreezeKit::Options options{
        .use_dump_program = (flags & TCPMIG_KIT_NO_DUMP_PROGRAM) == 0,
        .cgroup_name = cgroup_name != nullptr ? cgroup_name : "",
        .keep_window_small = (flags & TCPMIG_KIT_SMALL_WINDOW) != 0};
    const QuietLibbpf quiet;
    *kit = std::make_unique<tcpmig_kit>(options).release();
    return 0;
  });
}

void tcpmig_kit_free(tcpmig_kit* kit) noexcept { delete kit; }

std::uint32_t tcpmig_kit_features(const tcpmig_kit* kit) noexcept {
  std::uint32_t features = 0;
  if (kit == nullptr) return features;
  if (kit->kit.may_repair()) features |= TCPMIG_CAN_FREEZE;
  if (kit->kit.has_lock()) features |= TCPMIG_HAS_LOCK_PROGRAM;
  if (kit->kit.has_dump_program()) features |= TCPMIG_HAS_DUMP_PROGRAM;
  if (kit->kit.keeps_window_small()) features |= TCPMIG_HAS_SMALL_WINDOW;
  return features;
}

const char* tcpmig_kit_warning(const tcpmig_kit* kit, std::size_t index) noexcept {
  if (kit == nullptr || index >= kit->kit.warnings().size()) return nullptr;
  return kit->kit.warnings()[index].c_str();
}

int tcpmig_resume_kit_new(tcpmig_resume_kit** kit) noexcept {
  if (kit == nullptr) return refuse("kit");
  *kit = nullptr;
  return guarded([&] {
    const QuietLibbpf quiet;
    *kit = std::make_unique<tcpmig_resume_kit>().release();
    return 0;
  });
}

void tcpmig_resume_kit_free(tcpmig_resume_kit* kit) noexcept { delete kit; }

std::uint32_t tcpmig_resume_kit_features(const tcpmig_resume_kit* kit) noexcept {
  return kit != nullptr && kit->kit.has_congestion_program() ? TCPMIG_HAS_CONGESTION_PROGRAM : 0;
}

const char* tcpmig_resume_kit_warning(const tcpmig_resume_kit* kit, std::size_t index) noexcept {
  if (kit == nullptr || index >= kit->kit.warnings().size()) return nullptr;
  return kit->kit.warnings()[index].c_str();
}

int tcpmig_kit_captures_fd(const tcpmig_kit* kit) noexcept {
  if (kit == nullptr) return refuse("kit");
  if (!kit->kit.has_lock()) return fail(ENODEV, "the kit has no lock program");
  return kit->kit.captures_fd();
}

std::uint64_t tcpmig_kit_captures_lost(const tcpmig_kit* kit) noexcept {
  try {
    return kit != nullptr ? kit->kit.captures_lost() : 0;
  } catch (const std::exception&) {  // the map is our own: it can be read
    return 0;
  }
}

int tcpmig_captures_new(tcpmig_captures** captures) noexcept {
  if (captures == nullptr) return refuse("captures");
  *captures = nullptr;
  return guarded([&] {
    *captures = std::make_unique<tcpmig_captures>().release();
    return 0;
  });
}

void tcpmig_captures_free(tcpmig_captures* captures) noexcept { delete captures; }

int tcpmig_captures_collect(tcpmig_captures* captures, tcpmig_kit* kit) noexcept {
  if (captures == nullptr) return refuse("captures");
  if (kit == nullptr) return refuse("kit");
  return guarded([&] {
    return kit->kit.consume_captures(
        [&](tcpmig::CapturedSegment segment) { captures->segments.push_back(std::move(segment)); });
  });
}

std::size_t tcpmig_captures_count(const tcpmig_captures* captures) noexcept {
  return captures != nullptr ? captures->segments.size() : 0;
}

int tcpmig_captures_get(const tcpmig_captures* captures, std::size_t index, std::uint64_t* cookie,
                        const void** segment, std::size_t* size) noexcept {
  if (captures == nullptr) return refuse("captures");
  if (cookie == nullptr || segment == nullptr || size == nullptr)
    return refuse("cookie, segment, size");
  if (index >= captures->segments.size()) return fail(ENOENT, "no capture has this index");
  *cookie = captures->segments[index].cookie;
  *segment = captures->segments[index].bytes.data();
  *size = captures->segments[index].bytes.size();
  return 0;
}

}  // extern "C"
