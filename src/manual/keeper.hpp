// SPDX-License-Identifier: MIT
#pragma once
#include <sys/types.h>

#include <chrono>

#include "manual/snapshot_file.hpp"
#include "sys/unique_fd.hpp"

namespace tcpmig::manual {

/// A process that looks after a socket while it is being frozen: should we be killed in the middle, it gives the connection back and removes the
/// file. Afterwards it holds the connection's place (hold.hpp). It is the child of a process without other threads, in a session of its own,
/// and keeps no other descriptor of ours open.
class Keeper {
 public:
  /// `meeting_point`: of a hold; -1: none is wanted.
  Keeper(int socket, SnapshotFile& file, int meeting_point, std::chrono::seconds hold);
  /// The work is done, or has been undone: it ends.
  ~Keeper();
  Keeper(const Keeper&) = delete;
  Keeper& operator=(const Keeper&) = delete;

  [[nodiscard]] pid_t process() const noexcept { return process_; }
  void give_placeholder(int placeholder);
  /// The connection is out of its process: from here on the keeper holds its place, if it was given a placeholder, and outlives us. Its process id; 0: none.
  pid_t committed() noexcept;

 private:
  sys::UniqueFd control_;
  pid_t process_ = 0;
  bool has_placeholder_ = false;
};

}  // namespace tcpmig::manual
