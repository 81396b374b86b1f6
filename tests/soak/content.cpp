// SPDX-License-Identifier: MIT
#include "soak/content.hpp"

#include <algorithm>
#include <array>
#include <charconv>
#include <cstring>

namespace tcpmig::soak {
namespace {

std::string hex_of(std::uint64_t value) {
  std::array<char, 17> text{};
  const auto end = std::to_chars(text.data(), text.data() + text.size(), value, 16).ptr;
  return {text.data(), end};
}

std::optional<std::uint64_t> number_of(std::string_view text) {
  std::uint64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value, 16);
  if (error != std::errc() || end != text.data() + text.size()) return {};
  return value;
}

std::size_t between(std::uint64_t random, std::size_t low, std::size_t high) {
  return low + random % (high - low + 1);
}

constexpr std::uint64_t kPathCheck = 0x50a7;

}  // namespace

std::uint64_t mix(std::uint64_t value) {
  value += 0x9e3779b97f4a7c15;
  value = (value ^ (value >> 30)) * 0xbf58476d1ce4e5b9;
  value = (value ^ (value >> 27)) * 0x94d049bb133111eb;
  return value ^ (value >> 31);
}

void Stream::fill(std::size_t offset, char* to, std::size_t size) const {
  while (size > 0) {
    const std::uint64_t word = mix(key_ + offset / 8);
    const std::size_t skip = offset % 8, count = std::min(size, 8 - skip);
    std::memcpy(to, reinterpret_cast<const char*>(&word) + skip, count);
    to += count;
    offset += count;
    size -= count;
  }
}

std::optional<std::size_t> Stream::differs(std::size_t offset, std::string_view bytes) const {
  std::array<char, 4096> expected{};
  for (std::size_t done = 0; done < bytes.size();) {
    const std::size_t count = std::min(expected.size(), bytes.size() - done);
    fill(offset + done, expected.data(), count);
    for (std::size_t i = 0; std::memcmp(expected.data(), bytes.data() + done, count) != 0; ++i)
      if (expected[i] != bytes[done + i]) return offset + done + i;
    done += count;
  }
  return {};
}

std::size_t reply_size(std::uint64_t id) {
  const std::uint64_t random = mix(id ^ 0xa11), share = random % 100, size = mix(random);
  if (share < 70) return between(size, 100, 4000);
  if (share < 98) return between(size, 4000, 30'000);
  return between(size, 30'000, 400'000);
}

std::size_t request_size(std::uint64_t id) {
  const std::uint64_t random = mix(id ^ 0xb0d), share = random % 100, size = mix(random);
  if (share < 70) return between(size, 100, 1200);
  if (share < 95) return between(size, 1200, 20'000);
  return between(size, 20'000, 100'000);
}

std::string path_of(std::uint64_t id) {
  return "/" + hex_of(id) + "-" + hex_of(mix(id ^ kPathCheck));
}

std::optional<std::uint64_t> id_of(std::string_view path) {
  const std::size_t dash = path.find('-');
  if (!path.starts_with('/') || dash == std::string_view::npos) return {};
  const auto id = number_of(path.substr(1, dash - 1)), check = number_of(path.substr(dash + 1));
  if (!id || !check || *check != mix(*id ^ kPathCheck)) return {};
  return id;
}

void Hash::add(std::string_view bytes) {
  for (const char byte : bytes)
    value_ = (value_ ^ static_cast<unsigned char>(byte)) * 1099511628211ULL;
}

std::string Hash::hex() const { return hex_of(value_); }

std::string request_hash(std::uint64_t id) {
  std::string body(request_size(id), '\0');
  Stream(id, true).fill(0, body.data(), body.size());
  Hash hash;
  hash.add(body);
  return hash.hex();
}

std::string header(std::string_view head, std::string_view name) {
  const std::string wanted = "\r\n" + std::string(name) + ": ";
  const std::size_t at = head.find(wanted);
  if (at == std::string_view::npos) return {};
  const std::size_t begin = at + wanted.size();
  return std::string(head.substr(begin, head.find("\r\n", begin) - begin));
}

}  // namespace tcpmig::soak
