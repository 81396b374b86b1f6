// SPDX-License-Identifier: MIT
#pragma once
#include <cstdint>
#include <filesystem>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "sys/unique_fd.hpp"

struct bpf_object;
struct bpf_map;
struct bpf_map_info;

namespace tcpmig::sys {

/// Number of possible CPUs (the width of a per-CPU value).
int possible_cpus();

/// Empty: the running kernel has this function for BPF programs (a kfunc). Else what is missing. Found in its type information, never by its version.
std::string kfunc_missing(const std::string& name);

/// Sends libbpf's own messages to spdlog at debug level (warnings included: callers say themselves what failed). Call once.
void route_libbpf_log();

/// A directory on bpffs that holds the pins of one role. Mounts /sys/fs/bpf if nothing is mounted there (and says so in the log).
class PinDirectory {
 public:
  explicit PinDirectory(std::filesystem::path path);
  [[nodiscard]] const std::filesystem::path& path() const noexcept { return path_; }
  /// File descriptor of a pinned map or program; nullopt if there is no such pin.
  [[nodiscard]] std::optional<UniqueFd> open(const std::string& name) const;
  void pin(int fd,
           const std::string& name) const;    ///< replaces an existing pin (pin aside, then rename)
  bool unpin(const std::string& name) const;  ///< false: was not there
  void remove_all() const;                    ///< every pin below, then the directory itself

 private:
  std::filesystem::path path_;
};

/// Removes the directory of a role's pins and those of its node and instance, as far as they are empty.
void remove_empty_pins(const std::filesystem::path& pins);

/// Before loading: for each map of `object` that is pinned in `pins` with the same type, key, value size, max_entries and flags,
/// reuses it; otherwise the pin is stale and is removed (a new map is made). Names in `never` are left out (.rodata, .bss ..).
void adopt_pinned_maps(bpf_object* object, const PinDirectory& pins);
/// After loading: pins every map (not .rodata/.bss/.data) that is not pinned yet.
void pin_maps(bpf_object* object, const PinDirectory& pins);

/// How a tc program hangs on an interface.
enum class TcHook { kIngress, kEgress };

/// Attaches at tc: a TCX link (kernel >= 6.6; found by trying) pinned as `pin_name` in `pins`, else clsact with handle 0x7463 and
/// `priority`. An existing pinned link of ours is updated in place to the new program (no gap). With TCX, programs run in order of
/// attachment. Returns "tcx" or "clsact".
std::string attach_tc(int ifindex, TcHook hook, int prog_fd, const PinDirectory& pins,
                      const std::string& pin_name, std::uint32_t priority);
/// The same without pins, for as long as the descriptor is open: a TCX link; a descriptor that is none where the kernel has no TCX.
UniqueFd link_tc(int ifindex, TcHook hook, int prog_fd);
/// Detaches what attach_tc did (both ways); never touches a foreign filter or a clsact qdisc others use. Idempotent.
void detach_tc(int ifindex, TcHook hook, const PinDirectory& pins, const std::string& pin_name,
               std::uint32_t priority);
/// True while our program (by id) is on the hook.
bool is_tc_attached(int ifindex, TcHook hook, int prog_fd, const PinDirectory& pins,
                    const std::string& pin_name, std::uint32_t priority);

/// XDP in native mode by a link pinned as `pin_name`, updated in place when it exists. Throws with a sentence when the driver
/// has no native XDP or a foreign program is attached.
void attach_xdp(int ifindex, int prog_fd, const PinDirectory& pins, const std::string& pin_name);
/// The same without a pin, for as long as the descriptor is open.
UniqueFd link_xdp(int ifindex, int prog_fd);
void detach_xdp(const PinDirectory& pins, const std::string& pin_name);

/// What the kernel says about a map (struct of linux/bpf.h).
bpf_map_info map_info(int map_fd);

/// Raw map access by descriptor, in terms of trivially copyable keys and values. Throws std::system_error, except that a missing key
/// is nullopt/false.
template <typename Value, typename Key>
std::optional<Value> map_lookup(int map_fd, const Key& key);
template <typename Key, typename Value>
void map_update(int map_fd, const Key& key, const Value& value, std::uint64_t flags = 0);
template <typename Key>
bool map_delete(int map_fd, const Key& key);
/// All CPUs' values of a per-CPU array element.
template <typename Value>
std::vector<Value> map_lookup_percpu(int map_fd, std::uint32_t index);
/// Calls visit(key, value) for every entry (batched where the kernel can). Entries may be deleted while iterating.
template <typename Key, typename Value, typename Visit>
void map_for_each(int map_fd, Visit&& visit);

}  // namespace tcpmig::sys

#include "sys/bpf_map_access.hpp"  // the templates
