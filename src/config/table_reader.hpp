// SPDX-License-Identifier: MIT
#pragma once
#include <chrono>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include <toml++/toml.h>

#include "config/problems.hpp"
#include "sys/address.hpp"

namespace tcpmig::config {

Where where_of(const toml::node& node);

/// Reads one TOML table key by key. Every getter notes that the key is known; a value of the wrong
/// type or range becomes a Problem and counts as absent. finish() complains about the keys that
/// nobody asked for.
class TableReader {
 public:
  /// `title` names the table in messages: "[[service]]".
  TableReader(const toml::table& table, std::string title, Problems& problems);

  [[nodiscard]] bool has(std::string_view key) const { return table_.contains(key); }
  void know(const std::string& key) { (void)take(key); }  ///< read elsewhere
  std::optional<std::string> text(const std::string& key);
  /// A text that must be there; "" (and a Problem) when it is not. `example` is what the fix
  /// proposes.
  std::string needed_text(const std::string& key, const std::string& example);
  std::optional<std::int64_t> integer(const std::string& key, std::int64_t low, std::int64_t high);
  /// 0 (and a Problem) when it is missing or wrong.
  std::int64_t needed_integer(const std::string& key, std::int64_t low, std::int64_t high);
  std::optional<bool> boolean(const std::string& key);
  /// "2s", "500ms", "1m", "1h", "2d"; an integer is milliseconds.
  std::optional<std::chrono::milliseconds> duration(const std::string& key,
                                                    std::chrono::milliseconds longest);
  /// An address of the family that the key's last character says ("vip4", "address6"). Unset when
  /// absent or wrong.
  sys::Address address(const std::string& key);
  std::optional<sys::Prefix> prefix(const std::string& key);
  /// An array of texts that must be there and hold something.
  std::vector<std::string> needed_texts(const std::string& key, const std::string& example);
  /// One of the given words; nullopt when absent or wrong.
  std::optional<std::string> choice(const std::string& key, const std::vector<std::string>& words);
  /// The tables of an array of tables (or of an inline array); empty when absent.
  std::vector<const toml::table*> tables(const std::string& key);

  void problem(const std::string& key, std::string what, std::string fix);
  void missing(const std::string& key, const std::string& example);
  [[nodiscard]] const Places& places() const noexcept { return places_; }
  [[nodiscard]] const std::string& title() const noexcept { return title_; }
  void finish();  ///< call it before places()

 private:
  const toml::node* take(const std::string& key);
  void wrong_type(const std::string& key, const toml::node& node, const std::string& wanted);

  const toml::table& table_;
  std::string title_;
  Problems& problems_;
  Places places_;
  std::size_t problems_before_;
  std::vector<std::string> known_;
};

}  // namespace tcpmig::config
