// SPDX-License-Identifier: MIT
#pragma once
#include <array>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "agent/tombstones.hpp"
#include "config/config.hpp"
#include "control/keys.hpp"
#include "shared/node_maps.h"
#include "sys/bpf.hpp"

struct ring_buffer;

namespace tcpmig::agent {

/// The BPF programs of a server node, loaded, with their maps pinned (those of a former run adopted: tombstones above all), and
/// attached: resume_wire, then guard, at the ingress of the node's interface; resume_tun at that of the TUN.
class Programs {
 public:
  /// Loads. A kernel without bpf_sk_assign_tcp_reqsk() costs only the kernel resume: has_kernel_resume() is false then.
  Programs(const config::Config& config, const config::Node& self, const sys::PinDirectory& pins);
  ~Programs();

  [[nodiscard]] bool has_kernel_resume() const noexcept;
  /// Also that the host lets it work: without SYN cookies the kfunc succeeds, and then the kernel answers RST.
  [[nodiscard]] bool can_resume() const noexcept { return has_kernel_resume() && syncookies_; }
  /// Looks at net.ipv4.tcp_syncookies again, and tells the programs. False: it is as it was.
  bool look_at_syncookies();
  /// Why there is none; empty = there is.
  [[nodiscard]] const std::string& missing() const noexcept { return missing_; }

  /// Keys, ports, own addresses. `tun`: index of the TUN.
  void configure(const control::Secret& secret, int tun);
  /// Returns how ("tcx" or "clsact"). Again after that: puts back what somebody removed.
  std::string attach(int interface, int tun);
  [[nodiscard]] bool is_attached(int interface, int tun) const;
  /// Detaches from the interface; `pins` may have been made by a former run.
  static void detach(int interface, const sys::PinDirectory& pins);

  [[nodiscard]] Tombstones tombstones() const;
  [[nodiscard]] int pending_map() const noexcept;  ///< only with kernel resume
  [[nodiscard]] std::array<std::uint64_t, abi::NODE_COUNTER_MAX> counters() const;

  /// Readable when events wait.
  [[nodiscard]] int events_fd() const noexcept;
  /// Those that wait, oldest first.
  std::vector<abi::node_event> take_events();

  /// What the kernel says to resume.bpf.c, without pins or attachment: empty = it loads.
  static std::string probe_kernel_resume();

 private:
  struct Skeletons;
  const config::Config& config_;
  const config::Node& self_;
  const sys::PinDirectory& pins_;
  std::unique_ptr<Skeletons> skeletons_;
  std::unique_ptr<ring_buffer, void (*)(ring_buffer*)> events_;
  std::string missing_;
  bool syncookies_ = true;
  std::vector<abi::node_event> waiting_;
};

}  // namespace tcpmig::agent
