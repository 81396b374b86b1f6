// SPDX-License-Identifier: MIT
#pragma once
#include <cstddef>
#include <filesystem>
#include <string>
#include <vector>

/// Files of known contents, and what became of them on the way.
namespace tcpmig::lab {

/// A directory that is removed at the end, with everything in it. Readable for everybody (servers
/// drop their rights).
class TemporaryDirectory {
 public:
  explicit TemporaryDirectory(const std::string& prefix = "tcpmig");
  ~TemporaryDirectory();
  TemporaryDirectory(const TemporaryDirectory&) = delete;
  TemporaryDirectory& operator=(const TemporaryDirectory&) = delete;
  [[nodiscard]] const std::filesystem::path& path() const noexcept { return path_; }

 private:
  std::filesystem::path path_;
};

struct Payload {
  std::string name;  ///< file name
  std::size_t size = 0;
  std::string sha256;
};

/// Writes `size` random bytes into directory/name.
Payload make_payload(const std::filesystem::path& directory, const std::string& name,
                     std::size_t size);
void write_text(const std::filesystem::path& file, const std::string& text);
/// SHA-256 in hex; empty when the file cannot be read.
std::string sha256_of(const std::filesystem::path& file);
std::string sha256_of_bytes(const std::string& bytes);
/// "1 KB", "1 MB", "100 MB": powers of 1024 as people say them.
std::string human_size(std::size_t bytes);

}  // namespace tcpmig::lab
