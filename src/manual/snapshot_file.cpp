// SPDX-License-Identifier: MIT
#include "manual/snapshot_file.hpp"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include <span>
#include <string>
#include <utility>
#include <vector>

#include <tcpmig/codec.hpp>

#include "sys/check.hpp"
#include "sys/errors.hpp"

namespace tcpmig::manual {
namespace {

namespace fs = std::filesystem;

/// What codec.hpp allows, and more than any header needs.
constexpr std::size_t kMaxFile = 3 * kMaxQueueBytes + 4096;

fs::path directory_of(const fs::path& file) {
  return file.parent_path().empty() ? fs::path(".") : file.parent_path();
}

const char* kind_of(mode_t mode) {
  if (S_ISDIR(mode)) return "a directory";
  if (S_ISFIFO(mode)) return "a FIFO";
  if (S_ISSOCK(mode)) return "a socket";
  if (S_ISLNK(mode)) return "a symbolic link";
  return "a device";
}

void refuse_place(const fs::path& place, bool replace) {
  struct stat there{};
  if (::lstat(place.c_str(), &there) < 0) {
    if (errno == ENOENT && place.has_filename()) return;
    sys::check("look at " + place.string(), -1);
  }
  if (!S_ISREG(there.st_mode))
    throw sys::WrongSetup(place.string() + " is " + kind_of(there.st_mode) + ", not a file");
  if (!replace)
    throw sys::WrongSetup(place.string() + " exists: name another file, or say --force");
}

void write_all(int fd, std::span<const std::byte> bytes, const fs::path& file) {
  while (!bytes.empty())
    bytes = bytes.subspan(static_cast<std::size_t>(
        sys::check("write " + file.string(), ::write(fd, bytes.data(), bytes.size()))));
}

std::vector<std::byte> read_all(int fd, const fs::path& file) {
  std::vector<std::byte> bytes;
  for (std::size_t have = 0;;) {
    bytes.resize(have + (64U << 10));
    const auto got =
        sys::check("read " + file.string(), ::read(fd, bytes.data() + have, bytes.size() - have));
    have += static_cast<std::size_t>(got);
    bytes.resize(have);
    if (got == 0) return bytes;
    if (have > kMaxFile) throw sys::WrongSetup(file.string() + " is too large for a snapshot");
  }
}

}  // namespace

SnapshotFile::SnapshotFile(const fs::path& place, bool replace)
    : place_(fs::absolute(place)), replace_(replace) {  // a keeper changes its directory
  refuse_place(place, replace_);
  std::string name = directory_of(place_) / ("." + place_.filename().string() + ".XXXXXX");
  fd_.reset(sys::check("make a file in " + directory_of(place_).string(),
                       ::mkostemp(name.data(), O_CLOEXEC)));  // mode 0600
  aside_ = name;
  struct stat made{};
  if (::fstat(fd_.get(), &made) == 0) inode_ = made.st_ino;
}

void SnapshotFile::write(const Snapshot& snapshot) {
  write_all(fd_.get(), encode(snapshot), place_);
  sys::check("write " + place_.string() + " to the disk", ::fsync(fd_.get()));
}

void SnapshotFile::sync_directory() const {
  const fs::path directory = directory_of(place_);
  const sys::UniqueFd fd(sys::check("open " + directory.string(),
                                    ::open(directory.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC)));
  // a file system that cannot (EINVAL) has done it already, or never does
  if (::fsync(fd.get()) < 0 && errno != EINVAL)
    sys::check("write " + directory.string() + " to the disk", -1);
}

void SnapshotFile::publish() {
  const char *from = aside_.c_str(), *to = place_.c_str();
  int moved = replace_ ? ::renameat2(AT_FDCWD, from, AT_FDCWD, to, RENAME_EXCHANGE) : -1;
  if (moved < 0) moved = ::renameat2(AT_FDCWD, from, AT_FDCWD, to, RENAME_NOREPLACE);
  // of a file system that knows neither of the two
  if (moved < 0 && errno == EINVAL) moved = replace_ ? ::rename(from, to) : ::link(from, to);
  sys::check("put the snapshot at " + place_.string(), moved);
  sync_directory();
}

void SnapshotFile::keep() noexcept {
  done_ = true;
  ::unlink(aside_.c_str());  // the former one, if there was any
}

bool SnapshotFile::is_ours(const fs::path& path) const noexcept {
  struct stat there{};
  return ::lstat(path.c_str(), &there) == 0 && there.st_ino == inode_;
}

void SnapshotFile::undo() noexcept {
  if (std::exchange(done_, true)) return;
  if (is_ours(place_)) {
    if (::renameat2(AT_FDCWD, aside_.c_str(), AT_FDCWD, place_.c_str(), RENAME_EXCHANGE) < 0)
      ::unlink(place_.c_str());
  }
  if (is_ours(aside_)) ::unlink(aside_.c_str());
}

Snapshot read_snapshot(const fs::path& file) {
  // a FIFO without a writer must not hold us up
  const sys::UniqueFd fd(::open(file.c_str(), O_RDONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC));
  if (!fd && errno == ENOENT) throw sys::NotFound("there is no file " + file.string());
  struct stat there{};
  if (!fd || ::fstat(fd.get(), &there) < 0) sys::check("open " + file.string(), -1);
  if (!S_ISREG(there.st_mode))
    throw sys::WrongSetup(file.string() + " is " + kind_of(there.st_mode) + ", not a snapshot");
  if (there.st_size > static_cast<off_t>(kMaxFile))
    throw sys::WrongSetup(file.string() + " is too large for a snapshot");
  const auto snapshot = decode(read_all(fd.get(), file));
  if (snapshot) return *snapshot;
  throw sys::WrongSetup(file.string() + ": " + to_string(snapshot.error()));
}

}  // namespace tcpmig::manual
