// SPDX-License-Identifier: MIT
#include "agent/departure_record.hpp"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <cstdio>
#include <cstring>
#include <optional>
#include <span>
#include <system_error>
#include <type_traits>

#include "sys/check.hpp"
#include "sys/unique_fd.hpp"

namespace tcpmig::agent {
namespace {

/// Another layout gets another name.
constexpr std::array<char, 8> kMagic{'t', 'c', 'p', 'm', 'i', 'g', 'd', '2'};

struct File {
  std::array<char, 8> magic = kMagic;
  DepartureRecord record;
};
static_assert(std::is_trivially_copyable_v<File>);

std::optional<DepartureRecord> read_record(const std::filesystem::path& path) {
  const sys::UniqueFd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  File file;
  if (!fd || ::read(fd.get(), &file, sizeof file) != sizeof file || file.magic != kMagic)
    return std::nullopt;
  return file.record;
}

}  // namespace

conn::VoiceKept DepartureRecord::voice() const noexcept {
  return conn::VoiceKept(
      conn::VoiceKept::Values{tsval, has_window ? std::optional(peer_window) : std::nullopt});
}

void DepartureRecord::keep(const conn::VoiceKept& voice) noexcept {
  const conn::VoiceKept::Values values = voice.values();
  tsval = values.tsval;
  has_window = values.peer_window.has_value();
  peer_window = values.peer_window.value_or(0);
}

std::filesystem::path DepartureRecords::file(std::uint64_t cookie) const {
  std::array<char, 17> name{};
  std::snprintf(name.data(), name.size(), "%016llx", static_cast<unsigned long long>(cookie));
  return folder_ / name.data();
}

void DepartureRecords::write(const DepartureRecord& record) const {
  std::filesystem::create_directories(folder_);
  const File whole{kMagic, record};
  const std::filesystem::path path = file(record.cookie), fresh = path.string() + ".new";
  {
    const sys::UniqueFd fd(
        sys::check("open " + fresh.string(),
                   ::open(fresh.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600)));
    const auto written =
        sys::check("write " + fresh.string(), ::write(fd.get(), &whole, sizeof whole));
    if (written != sizeof whole)
      throw std::system_error(ENOSPC, std::generic_category(), fresh.string());
  }
  std::filesystem::rename(fresh, path);
}

void DepartureRecords::remove(std::uint64_t cookie) const noexcept {
  ::unlink(file(cookie).c_str());
}

std::vector<DepartureRecord> DepartureRecords::read_all() const {
  std::vector<DepartureRecord> records;
  std::error_code none;
  for (const auto& entry : std::filesystem::directory_iterator(folder_, none)) {
    const auto record = read_record(entry.path());
    if (record && file(record->cookie) == entry.path())
      records.push_back(*record);
    else
      std::filesystem::remove(entry.path(), none);
  }
  return records;
}

}  // namespace tcpmig::agent
