// SPDX-License-Identifier: MIT
#pragma once
#include <cstddef>
#include <span>
#include <string>

#include "sys/unique_fd.hpp"

namespace tcpmig::sys {

/// A TUN device (layer 3, no packet information) in this thread's network namespace, up, without
/// IPv6 addresses (not even a link-local one) and with 192.0.0.8 (RFC 7600: means nothing) as its
/// only IPv4 one, rp_filter 2 (loose: max(all, device) decides, so loose wins over a strict `all`;
/// but on a device without an IPv4 address loose too drops everything). Not persistent: the kernel
/// removes it when the descriptor is closed, also after kill -9. What the kernel sends out on it is
/// read here; what is written here the kernel receives on it. Packets up to 65535 bytes, whole IP
/// packets.
class Tun {
 public:
  explicit Tun(const std::string& name);
  [[nodiscard]] int fd() const noexcept { return fd_.get(); }  ///< non-blocking
  [[nodiscard]] int ifindex() const noexcept { return ifindex_; }
  [[nodiscard]] const std::string& name() const noexcept { return name_; }
  /// Gives one IP packet to the kernel as if received. Throws on errors other than a full queue or
  /// a device that is down; false then.
  bool inject(std::span<const std::byte> packet);

 private:
  UniqueFd fd_;
  int ifindex_ = 0;
  std::string name_;
};

}  // namespace tcpmig::sys
