// SPDX-License-Identifier: MIT
#include <bpf/bpf.h>
#include <linux/magic.h>
#include <spdlog/spdlog.h>
#include <sys/mount.h>
#include <sys/vfs.h>

#include "sys/bpf.hpp"
#include "sys/check.hpp"

namespace tcpmig::sys {
namespace {

constexpr const char* kBpffs = "/sys/fs/bpf";

bool is_bpffs(const std::filesystem::path& path) {
  struct statfs info{};
  check("statfs " + path.string(), ::statfs(path.c_str(), &info));
  return static_cast<unsigned long>(info.f_type) == BPF_FS_MAGIC;
}

void mount_bpffs() {
  if (is_bpffs(kBpffs)) return;
  check("mount bpffs on /sys/fs/bpf",
        ::mount("bpf", kBpffs, "bpf", MS_NOSUID | MS_NODEV | MS_NOEXEC, "mode=0700"));
  spdlog::info("mounted bpffs on {}", kBpffs);
}

}  // namespace

PinDirectory::PinDirectory(std::filesystem::path path) : path_(std::move(path)) {
  mount_bpffs();
  std::filesystem::create_directories(path_);
  if (!is_bpffs(path_))
    throw std::system_error(EINVAL, std::generic_category(), path_.string() + " is not on bpffs");
}

std::optional<UniqueFd> PinDirectory::open(const std::string& name) const {
  const std::filesystem::path file = path_ / name;
  const int fd = bpf_obj_get(file.c_str());
  if (fd == -ENOENT) return std::nullopt;
  return UniqueFd(check_errno("open pin " + file.string(), fd));
}

void PinDirectory::pin(int fd, const std::string& name) const {
  const std::filesystem::path file = path_ / name;
  const std::filesystem::path aside = path_ / (name + "_new");  // bpffs refuses names with a dot
  std::filesystem::remove(aside);                               // left by a crash
  check_errno("pin " + file.string(), bpf_obj_pin(fd, aside.c_str()));
  std::filesystem::rename(aside, file);
}

bool PinDirectory::unpin(const std::string& name) const {
  return std::filesystem::remove(path_ / name);
}

void PinDirectory::remove_all() const { std::filesystem::remove_all(path_); }

void remove_empty_pins(const std::filesystem::path& pins) {
  std::error_code ignored;  // a directory that is not empty stays
  for (const auto& path : {pins, pins.parent_path(), pins.parent_path().parent_path()})
    std::filesystem::remove(path, ignored);
}

}  // namespace tcpmig::sys
