// SPDX-License-Identifier: MIT
#pragma once
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "config/config.hpp"

namespace tcpmig::config {

/// A place in the file. Line 0 = the file as a whole.
struct Where {
  unsigned line = 0;
  unsigned column = 0;
};

/// Where a table and its keys stand, so that a check made after reading can still point at the
/// line.
struct Places {
  Where table;
  bool sound = true;  ///< nothing was wrong with the table itself
  std::map<std::string, Where, std::less<>> keys;
  /// The key's place; the table's when the key is not there.
  [[nodiscard]] Where of(std::string_view key) const;
};

/// Collects everything that is wrong with one file.
class Problems {
 public:
  explicit Problems(std::string file) : file_(std::move(file)) {}
  void add(Where where, std::string what, std::string fix);
  [[nodiscard]] bool empty() const noexcept { return list_.empty(); }
  [[nodiscard]] std::size_t size() const noexcept { return list_.size(); }
  /// In file order.
  [[nodiscard]] std::vector<Problem> take();

 private:
  std::string file_;
  std::vector<Problem> list_;
};

std::string quote(std::string_view text);
/// The candidate that `word` is most likely a slip of; empty when none is near.
std::string nearest(std::string_view word, const std::vector<std::string>& candidates);
/// "\"a\", \"b\" or \"c\""
std::string one_of(const std::vector<std::string>& words);

}  // namespace tcpmig::config
