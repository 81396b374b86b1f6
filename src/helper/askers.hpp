// SPDX-License-Identifier: MIT
#pragma once
#include <sys/socket.h>
#include <sys/types.h>

#include <map>
#include <mutex>
#include <optional>
#include <set>

#include "helper/helper.hpp"

namespace tcpmig::helper {

/// Who may ask: root, the user that this runs as, and whom the options name.
class Askers {
 public:
  /// Throws sys::WrongSetup for a name that this machine does not know.
  explicit Askers(const Options& options);
  /// By what the kernel says of who has connected (SO_PEERCRED, SO_PEERGROUPS).
  [[nodiscard]] bool may_ask(int client) const;
  [[nodiscard]] std::optional<gid_t> group() const noexcept { return group_; }
  /// The least that lets them connect; who it lets in besides is refused then.
  [[nodiscard]] mode_t mode() const noexcept;

 private:
  std::set<uid_t> users_;
  std::optional<gid_t> group_;
};

/// So many clients are served at once, and so many of one user, that one cannot keep the others out.
class Slots {
 public:
  static constexpr int kAll = 16;
  static constexpr int kOfOneUser = 8;
  /// False: there is none free.
  bool take(uid_t user);
  void give_back(uid_t user);
  [[nodiscard]] bool all_free();

 private:
  std::mutex mutex_;
  std::map<uid_t, int> taken_;
  int all_taken_ = 0;
};

uid_t user_of(int client);

}  // namespace tcpmig::helper
