// SPDX-License-Identifier: MIT
#include "lab/payload.hpp"

#include <sodium.h>

#include <algorithm>
#include <fstream>
#include <stdexcept>

#include "sys/check.hpp"

namespace tcpmig::lab {
namespace {

constexpr std::size_t kChunk = 1U << 20;

std::string to_hex(const unsigned char* bytes, std::size_t size) {
  std::string text(size * 2 + 1, '\0');
  sodium_bin2hex(text.data(), text.size(), bytes, size);
  text.pop_back();
  return text;
}

class Sha256 {
 public:
  Sha256() { crypto_hash_sha256_init(&state_); }
  void add(const char* bytes, std::size_t size) {
    crypto_hash_sha256_update(&state_, reinterpret_cast<const unsigned char*>(bytes), size);
  }
  std::string finish() {
    unsigned char sum[crypto_hash_sha256_BYTES];
    crypto_hash_sha256_final(&state_, sum);
    return to_hex(sum, sizeof sum);
  }

 private:
  crypto_hash_sha256_state state_{};
};

}  // namespace

TemporaryDirectory::TemporaryDirectory(const std::string& prefix) {
  std::string pattern = (std::filesystem::temp_directory_path() / (prefix + "-XXXXXX")).string();
  if (::mkdtemp(pattern.data()) == nullptr)
    throw std::system_error(errno, std::generic_category(), "mkdtemp " + pattern);
  path_ = pattern;
  std::filesystem::permissions(path_, std::filesystem::perms(0755));
}

TemporaryDirectory::~TemporaryDirectory() {
  std::error_code ignored;
  std::filesystem::remove_all(path_, ignored);
}

Payload make_payload(const std::filesystem::path& directory, const std::string& name,
                     std::size_t size) {
  if (::sodium_init() < 0) throw std::runtime_error("libsodium does not start");
  std::ofstream output(directory / name, std::ios::binary);
  std::string chunk;
  Sha256 sum;
  for (std::size_t left = size; left > 0; left -= chunk.size()) {
    chunk.resize(std::min(left, kChunk));
    ::randombytes_buf(chunk.data(), chunk.size());
    sum.add(chunk.data(), chunk.size());
    output.write(chunk.data(), static_cast<std::streamsize>(chunk.size()));
  }
  if (!output.flush()) throw std::runtime_error("cannot write " + (directory / name).string());
  return {name, size, sum.finish()};
}

void write_text(const std::filesystem::path& file, const std::string& text) {
  std::ofstream output(file, std::ios::binary);
  if (!(output << text << std::flush)) throw std::runtime_error("cannot write " + file.string());
}

std::string sha256_of(const std::filesystem::path& file) {
  std::ifstream input(file, std::ios::binary);
  if (!input) return {};
  std::string chunk(kChunk, '\0');
  Sha256 sum;
  while (input.read(chunk.data(), static_cast<std::streamsize>(chunk.size())) || input.gcount() > 0)
    sum.add(chunk.data(), static_cast<std::size_t>(input.gcount()));
  return sum.finish();
}

std::string sha256_of_bytes(const std::string& bytes) {
  Sha256 sum;
  sum.add(bytes.data(), bytes.size());
  return sum.finish();
}

std::string human_size(std::size_t bytes) {
  if (bytes >= kChunk && bytes % kChunk == 0) return std::to_string(bytes / kChunk) + " MB";
  if (bytes >= 1024 && bytes % 1024 == 0) return std::to_string(bytes / 1024) + " KB";
  return std::to_string(bytes) + " B";
}

}  // namespace tcpmig::lab
