// SPDX-License-Identifier: MIT
#pragma once
#include <sys/types.h>

#include <filesystem>

#include <tcpmig/snapshot.hpp>
#include "sys/unique_fd.hpp"

namespace tcpmig::manual {

/// A snapshot file that is being made: written beside its place under a name that begins with a dot, mode 0600, and put in its place by rename
/// once it is on the disk. Destroyed before keep() it is gone, and what stood in its place is there again.
class SnapshotFile {
 public:
  /// Makes the file beside its place. Throws sys::WrongSetup where something is in the place already and may not be replaced, or is no
  /// regular file; std::system_error.
  SnapshotFile(const std::filesystem::path& place, bool replace);
  ~SnapshotFile() { undo(); }
  SnapshotFile(const SnapshotFile&) = delete;
  SnapshotFile& operator=(const SnapshotFile&) = delete;

  /// All of it, and waits until it is on the disk.
  void write(const Snapshot& snapshot);
  /// Puts it in its place, and waits until that is on the disk.
  void publish();
  /// It stays. The former one goes.
  void keep() noexcept;
  /// As it was before the constructor, whatever has been done since, by this process or another one that has this object (a child after
  /// fork()): it looks at the disk.
  void undo() noexcept;

 private:
  [[nodiscard]] bool is_ours(const std::filesystem::path& path) const noexcept;
  void sync_directory() const;

  std::filesystem::path place_, aside_;
  bool replace_;
  sys::UniqueFd fd_;
  ino_t inode_ = 0;
  bool done_ = false;
};

/// Reads a snapshot file. Only a regular file of a size that a snapshot can have is opened for reading. Throws sys::NotFound, sys::WrongSetup that names
/// what is wrong with it, std::system_error.
Snapshot read_snapshot(const std::filesystem::path& file);

}  // namespace tcpmig::manual
