// SPDX-License-Identifier: MIT
#pragma once
#include <string>
#include <vector>

#include "config/config.hpp"
#include "sys/bpf.hpp"

namespace tcpmig::steering {

/// Where the switch's programs hang: one pin "tc-<interface>" or "xdp-<interface>" each (on a
/// kernel without TCX: a clsact filter and a mark).
class Attachments {
 public:
  explicit Attachments(const sys::PinDirectory& pins) : pins_(pins) {}

  /// Attaches, or updates in place. Throws std::system_error with a sentence when it is impossible.
  /// Returns "tcx", "clsact" or "xdp".
  std::string attach(config::Datapath datapath, const std::string& interface, int ifindex,
                     int prog_fd) const;
  [[nodiscard]] bool is_attached(config::Datapath datapath, const std::string& interface,
                                 int ifindex, int prog_fd) const;
  /// A link of ours is pinned for it (whether it still hangs there or not).
  [[nodiscard]] bool is_there(config::Datapath datapath, const std::string& interface) const;
  /// "tcx", "clsact" or "xdp"; only of what is attached.
  [[nodiscard]] std::string how(config::Datapath datapath, const std::string& interface) const;
  void detach(config::Datapath datapath, const std::string& interface, int ifindex) const;

  /// One that is there. For a clsact mark the interface is not known by name, only by index.
  struct Found {
    config::Datapath datapath;
    std::string interface;
    int ifindex = 0;
  };
  [[nodiscard]] std::vector<Found> found() const;

 private:
  const sys::PinDirectory& pins_;
};

}  // namespace tcpmig::steering
