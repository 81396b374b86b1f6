// SPDX-License-Identifier: MIT
#include "control/keys.hpp"

#include <fcntl.h>
#include <sodium.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <fstream>
#include <optional>
#include <sstream>
#include <stdexcept>
#include <utility>

#include "lib/siphash.h"
#include "sys/check.hpp"
#include "sys/errors.hpp"
#include "sys/unique_fd.hpp"

namespace tcpmig::control {
namespace {

constexpr std::size_t kSecretBytes = 32;

void start_sodium() {
  if (sodium_init() < 0) throw std::runtime_error("libsodium cannot be started");
}

[[noreturn]] void malformed(const std::filesystem::path& file, unsigned line,
                            const std::string& why) {
  throw sys::WrongSetup(file.string() + ":" + std::to_string(line) + ": " + why +
                        ": a line is \"ID HEX\", ID 1..255, HEX 64 hexadecimal digits");
}

void check_permissions(const std::filesystem::path& file) {
  struct stat status{};
  if (::stat(file.c_str(), &status) < 0)
    throw sys::WrongSetup("secret file " + file.string() + ": " + std::strerror(errno) +
                          ": make one with `tcpmig secret generate " + file.string() +
                          "` and copy it to every node");
  if ((status.st_mode & 077U) != 0)
    throw sys::WrongSetup("secret file " + file.string() + " can be read by others: chmod 600 " +
                          file.string());
}

std::optional<std::array<unsigned char, kSecretBytes>> from_hex(const std::string& hex) {
  std::array<unsigned char, kSecretBytes> bytes{};
  std::size_t length = 0;
  const char* end = nullptr;
  if (hex.size() != 2 * kSecretBytes ||
      sodium_hex2bin(bytes.data(), bytes.size(), hex.data(), hex.size(), nullptr, &length, &end) !=
          0 ||
      length != kSecretBytes || end != hex.data() + hex.size())
    return std::nullopt;
  return bytes;
}

std::array<unsigned char, kSecretBytes> random_bytes() {
  std::array<unsigned char, kSecretBytes> bytes{};
  randombytes_buf(bytes.data(), bytes.size());
  return bytes;
}

std::string key_line(std::uint8_t id, const std::array<unsigned char, kSecretBytes>& bytes) {
  std::array<char, 2 * kSecretBytes + 1> hex{};
  sodium_bin2hex(hex.data(), hex.size(), bytes.data(), bytes.size());
  return std::to_string(id) + " " + hex.data() + "\n";
}

/// On the disk before it counts: a secret that is lost stops the cluster.
void write_new(const std::filesystem::path& file, const std::string& text) {
  const sys::UniqueFd out(
      sys::check("create secret file " + file.string(),
                 ::open(file.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600)));
  if (sys::check("write secret file", ::write(out.get(), text.data(), text.size())) !=
      static_cast<ssize_t>(text.size()))
    throw std::runtime_error("secret file " + file.string() + ": short write");
  sys::check("fsync secret file", ::fsync(out.get()));
}

/// BLAKE2b with a 16-byte result, keyed with the secret, over a label and up to two node ids.
abi::siphash_key derive(std::span<const unsigned char> secret, const std::string& label,
                        std::uint16_t a, std::uint16_t b) {
  std::string text = label;
  for (const std::uint16_t id : {a, b}) {
    text.push_back(static_cast<char>(id >> 8));
    text.push_back(static_cast<char>(id & 0xff));
  }
  std::array<unsigned char, 16> key{};
  if (crypto_generichash(key.data(), key.size(),
                         reinterpret_cast<const unsigned char*>(text.data()), text.size(),
                         secret.data(), secret.size()) != 0)
    throw std::runtime_error("libsodium: crypto_generichash failed");
  abi::siphash_key result{};
  static_assert(sizeof result == sizeof key);
  std::memcpy(&result, key.data(), sizeof result);
  return result;
}

}  // namespace

Secret Secret::load(const std::filesystem::path& file) {
  start_sodium();
  check_permissions(file);
  std::ifstream input(file);
  if (!input) throw sys::WrongSetup("secret file " + file.string() + " cannot be read");
  Secret secret;
  unsigned number = 0;
  for (std::string line; std::getline(input, line);) {
    ++number;
    std::istringstream words(line);
    std::string id;
    std::string hex;
    std::string rest;
    if (!(words >> id) || id.front() == '#') continue;
    if (!(words >> hex) || (words >> rest)) malformed(file, number, "not two words");
    const auto bytes = from_hex(hex);
    char* end = nullptr;
    const unsigned long value = std::strtoul(id.c_str(), &end, 10);
    if (!bytes) malformed(file, number, "the key is not 64 hexadecimal digits");
    if (*end != '\0' || value < 1 || value > 255) malformed(file, number, "the id is out of range");
    if (secret.entries_.size() == 2) malformed(file, number, "more than two keys");
    if (!secret.entries_.empty() && ((secret.entries_.front().id ^ value) & 1U) == 0)
      malformed(file, number, "the ids of the two keys must be one odd, one even");
    secret.entries_.push_back({static_cast<std::uint8_t>(value), *bytes});
  }
  if (secret.entries_.empty())
    throw sys::WrongSetup("secret file " + file.string() +
                          " holds no key: make one with `tcpmig secret generate`");
  return secret;
}

void Secret::generate(const std::filesystem::path& file) {
  start_sodium();
  write_new(file, key_line(1, random_bytes()));
}

std::uint8_t Secret::add_key(const std::filesystem::path& file) {
  Secret secret = load(file);
  if (secret.entries_.size() == 2)
    throw sys::WrongSetup(file.string() +
                          " holds two keys already: `use` the second, or `drop` it, first");
  // the other parity, which is what tells the two apart in a key ring
  const std::uint8_t current = secret.entries_.front().id;
  const auto id = static_cast<std::uint8_t>(current == 255 ? 2 : current + 1);
  secret.entries_.push_back({id, random_bytes()});
  secret.save(file);
  return id;
}

std::uint8_t Secret::use_second(const std::filesystem::path& file) {
  Secret secret = load(file);
  if (secret.entries_.size() != 2)
    throw sys::WrongSetup(file.string() + " holds one key: `add` a second one first");
  std::swap(secret.entries_[0], secret.entries_[1]);
  secret.save(file);
  return secret.entries_.front().id;
}

std::uint8_t Secret::drop_second(const std::filesystem::path& file) {
  Secret secret = load(file);
  if (secret.entries_.size() != 2)
    throw sys::WrongSetup(file.string() + " holds one key: there is none to drop");
  const std::uint8_t id = secret.entries_.back().id;
  secret.entries_.pop_back();
  secret.save(file);
  return id;
}

void Secret::save(const std::filesystem::path& file) const {
  std::string text;
  std::ifstream input(file);
  for (std::string line; std::getline(input, line);)
    if (line.find_first_not_of(" \t") != std::string::npos &&
        line[line.find_first_not_of(" \t")] == '#')
      text += line + "\n";
  for (const Entry& entry : entries_) text += key_line(entry.id, entry.bytes);
  const std::filesystem::path aside = file.string() + ".new";
  std::filesystem::remove(aside);  // left by a crash
  write_new(aside, text);
  std::filesystem::rename(aside, file);
}

std::uint8_t Secret::current_id() const noexcept { return entries_.front().id; }

abi::key_ring Secret::switch_keys(std::uint16_t node) const {
  abi::key_ring ring{};
  for (const Entry& entry : entries_) {
    ring.key[entry.id & 1U] = derive(entry.bytes, "tcpmig switch", node, 0);
    ring.key_id[entry.id & 1U] = entry.id;
  }
  return ring;
}

abi::key_ring Secret::pair_keys(std::uint16_t sender, std::uint16_t target) const {
  abi::key_ring ring{};
  for (const Entry& entry : entries_) {
    ring.key[entry.id & 1U] = derive(entry.bytes, "tcpmig pair", sender, target);
    ring.key_id[entry.id & 1U] = entry.id;
  }
  return ring;
}

abi::siphash_key Secret::maglev_key() const {
  return derive(entries_.front().bytes, "tcpmig maglev", 0, 0);
}

std::uint64_t siphash(const abi::siphash_key& key, std::span<const std::byte> first,
                      std::span<const std::byte> second) {
  abi::siphash state{};
  abi::siphash_begin(&state, &key);
  std::uint64_t word = 0;
  unsigned filled = 0;
  const auto take = [&](std::span<const std::byte> bytes) {
    std::size_t i = 0;
    while (i < bytes.size()) {
      if (filled == 0 && bytes.size() - i >= 8) {
        std::uint64_t whole = 0;
        std::memcpy(&whole, bytes.data() + i, 8);
        abi::siphash_absorb(&state, whole);
        i += 8;
        continue;
      }
      word |= std::to_integer<std::uint64_t>(bytes[i++]) << (8 * filled);
      if (++filled == 8) {
        abi::siphash_absorb(&state, word);
        word = 0;
        filled = 0;
      }
    }
  };
  take(first);
  take(second);
  return abi::siphash_end(&state, word, static_cast<std::uint32_t>(first.size() + second.size()));
}

}  // namespace tcpmig::control
