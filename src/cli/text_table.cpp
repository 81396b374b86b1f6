// SPDX-License-Identifier: MIT
#include "cli/text_table.hpp"

#include <algorithm>
#include <array>
#include <cstdio>

namespace tcpmig::cli {
namespace {

/// UTF-8 is not expected here: names, addresses and numbers.
bool is_numeric(const std::string& cell) {
  return cell.empty() || cell == "-" ||
         (std::ranges::count(cell, '.') < 2 &&  // an address is none
          cell.find_first_not_of("0123456789.kMGTPmshd") == std::string::npos &&
          cell.find_first_of("0123456789") == 0);
}

struct Column {
  std::size_t width = 0;
  bool right = true;
};

}  // namespace

std::string aligned(const std::vector<std::vector<std::string>>& rows, const std::string& indent) {
  std::vector<Column> columns;
  for (std::size_t r = 0; r < rows.size(); ++r) {
    columns.resize(std::max(columns.size(), rows[r].size()));
    for (std::size_t c = 0; c < rows[r].size(); ++c) {
      columns[c].width = std::max(columns[c].width, rows[r][c].size());
      columns[c].right = columns[c].right && (r == 0 || is_numeric(rows[r][c]));
    }
  }
  std::string text;
  for (const auto& row : rows) {
    std::string line = indent;
    for (std::size_t c = 0; c < row.size(); ++c) {
      const std::string space(columns[c].width - row[c].size(), ' ');
      line += (c == 0 ? "" : "  ") +
              (columns[c].right && rows.size() > 1 ? space + row[c] : row[c] + space);
    }
    line.erase(line.find_last_not_of(' ') + 1);
    text += line + "\n";
  }
  return text;
}

std::string human_bytes(std::uint64_t bytes) {
  if (bytes < 1000) return std::to_string(bytes);
  auto value = static_cast<double>(bytes);
  std::size_t unit = 0;
  constexpr std::array kUnits{"", "k", "M", "G", "T", "P"};
  while (value >= 999.5 && unit + 1 < kUnits.size()) {
    value /= 1000;
    ++unit;
  }
  std::array<char, 32> text{};
  std::snprintf(text.data(), text.size(), value < 9.95 ? "%.1f%s" : "%.0f%s", value, kUnits[unit]);
  return text.data();
}

std::string human_seconds(double seconds) {
  std::array<char, 32> text{};
  const auto whole = static_cast<long>(seconds);
  if (seconds < 10)
    std::snprintf(text.data(), text.size(), "%.1fs", seconds);
  else if (whole < 60)
    std::snprintf(text.data(), text.size(), "%lds", whole);
  else if (whole < 3600)
    std::snprintf(text.data(), text.size(), "%ldm%02lds", whole / 60, whole % 60);
  else if (whole < 86'400)
    std::snprintf(text.data(), text.size(), "%ldh%02ldm", whole / 3600, whole / 60 % 60);
  else
    std::snprintf(text.data(), text.size(), "%ldd%02ldh", whole / 86'400, whole / 3600 % 24);
  return text.data();
}

}  // namespace tcpmig::cli
