// SPDX-License-Identifier: MIT
#pragma once
#include <cstdint>

#include "conn/repair_request.hpp"
#include "helper/helper.hpp"
#include "sys/unique_fd.hpp"

namespace tcpmig::helper {

/// What may be done with whose sockets: TCP, and of the network namespace in which this was made.
class Operations {
 public:
  /// Throws std::system_error. Without CAP_NET_RAW everything works but kTellEnd.
  explicit Operations(const Options& options);
  /// 0, or an errno: what the kernel says; ENOTSOCK, EPROTOTYPE (not TCP), EXDEV (another network namespace), EPERM (not allowed here), EOPNOTSUPP (no such
  /// operation), ENOENT (nothing in TIME_WAIT). From any thread.
  [[nodiscard]] int perform(const conn::RepairRequest& request, int fd) const noexcept;
  [[nodiscard]] bool can_tell_ends() const noexcept { return static_cast<bool>(raw4_); }

 private:
  void perform_or_throw(const conn::RepairRequest& request, int fd) const;
  void tell_end(const conn::RepairRequest& request, int fd) const;
  Options options_;
  std::uint64_t namespace_;
  sys::UniqueFd raw4_, raw6_;
};

}  // namespace tcpmig::helper
