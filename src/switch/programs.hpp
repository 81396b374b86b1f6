// SPDX-License-Identifier: MIT
#pragma once
#include <memory>
#include <string>

#include "config/config.hpp"
#include "sys/bpf.hpp"

struct bpf_object;

namespace tcpmig::steering {

/// The switch's BPF object of one datapath, loaded. Both datapaths declare the same maps, so the
/// one can adopt what the other has pinned.
class Programs {
 public:
  /// Opens, sizes the tables by `limits`, adopts the maps that are pinned and fit, and loads.
  /// Throws std::system_error with one clear sentence.
  Programs(config::Datapath datapath, const config::Limits& limits, const sys::PinDirectory& pins);

  [[nodiscard]] config::Datapath datapath() const noexcept { return datapath_; }
  [[nodiscard]] int program(
      const std::string& role) const;  ///< "clients", "nodes", "forget" or "reap"
  [[nodiscard]] int map(const std::string& name) const;
  void pin_maps(const sys::PinDirectory& pins) const;
  /// As "program-<datapath>-<role>", so that others can see what should hang where; the other
  /// datapath's are removed.
  void pin_programs(const sys::PinDirectory& pins) const;

 private:
  struct Close {
    void operator()(bpf_object* object) const noexcept;
  };
  config::Datapath datapath_;
  std::unique_ptr<bpf_object, Close> object_;
};

/// "program-tc-clients"
std::string program_pin(config::Datapath datapath, const std::string& role);

}  // namespace tcpmig::steering
