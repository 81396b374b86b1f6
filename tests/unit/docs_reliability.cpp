// SPDX-License-Identifier: MIT
// docs/reliability.md: no pitfall and no cell of the crash matrix without a test that exists, or a reason.
#include <filesystem>
#include <fstream>
#include <regex>
#include <set>
#include <sstream>
#include <string>
#include <vector>

#include "catch.hpp"

namespace {

namespace fs = std::filesystem;
const fs::path kSource = TCPMIG_SOURCE;

/// Of the list of pitfalls; a new one is added here and there.
constexpr int kPitfalls = 48;

std::string text_of(const fs::path& path) {
  std::ostringstream text;
  text << std::ifstream(path).rdbuf();
  return text.str();
}

/// The names of all test cases; a long one is written as several literals.
std::set<std::string> test_cases() {
  static const std::regex test(R"re(TEST_CASE\(\s*((?:"(?:[^"\\]|\\.)*"\s*)+))re");
  static const std::regex literal(R"re("((?:[^"\\]|\\.)*)")re");
  std::set<std::string> names;
  for (const auto& entry : fs::recursive_directory_iterator(kSource / "tests")) {
    if (entry.path().extension() != ".cpp") continue;
    const std::string text = text_of(entry.path());
    for (std::sregex_iterator i(text.begin(), text.end(), test), end; i != end; ++i) {
      const std::string literals = (*i)[1];
      std::string name;
      for (std::sregex_iterator j(literals.begin(), literals.end(), literal); j != end; ++j)
        name += (*j)[1];
      names.insert(name);
    }
  }
  return names;
}

/// The lines of a chapter ("## NAME" to the next one) that are rows of its table, without the head.
std::vector<std::string> rows_of(const std::string& chapter) {
  std::istringstream text(text_of(kSource / "docs" / "reliability.md"));
  std::vector<std::string> rows;
  bool inside = false;
  int head = 0;
  for (std::string line; std::getline(text, line);) {
    if (line.starts_with("## ")) inside = line == "## " + chapter;
    if (!inside || !line.starts_with("|")) continue;
    if (++head > 2) rows.push_back(line);
  }
  return rows;
}

std::vector<std::string> cells_of(const std::string& row) {
  std::vector<std::string> cells;
  std::istringstream text(row.substr(1));
  for (std::string cell; std::getline(text, cell, '|');) {
    const auto first = cell.find_first_not_of(' '), last = cell.find_last_not_of(' ');
    cells.push_back(first == std::string::npos ? "" : cell.substr(first, last - first + 1));
  }
  return cells;
}

/// What stands between backquotes.
std::vector<std::string> quoted(const std::string& cell) {
  static const std::regex quote("`([^`]*)`");
  std::vector<std::string> names;
  for (std::sregex_iterator i(cell.begin(), cell.end(), quote), end; i != end; ++i)
    names.push_back((*i)[1]);
  return names;
}

void check_tests(const std::vector<std::string>& names, const std::set<std::string>& known) {
  for (const std::string& name : names) {
    INFO("test case: " << name);
    CHECK(known.contains(name));
  }
}

}  // namespace

TEST_CASE(
    "docs: every pitfall has a test, is refused with a test, or a reason why it cannot occur") {
  const std::set<std::string> known = test_cases();
  REQUIRE(known.contains(
      "docs: every pitfall has a test, is refused with a test, or a reason why it cannot occur"));
  std::set<int> numbers;
  for (const std::string& row : rows_of("Pitfalls")) {
    INFO(row);
    const std::vector<std::string> cells = cells_of(row);
    REQUIRE(cells.size() == 4);  // number, pitfall, what we do, tests
    numbers.insert(std::stoi(cells[0]));
    const std::vector<std::string> tests = quoted(cells[3]);
    check_tests(tests, known);
    const bool cannot = cells[2].starts_with("cannot occur: ") && cells[2].size() > 40;
    CHECK((cannot || !tests.empty()));
  }
  CHECK(numbers.size() == kPitfalls);
  CHECK(*numbers.begin() == 1);
  CHECK(*numbers.rbegin() == kPitfalls);
}

TEST_CASE("docs: every cell of the crash matrix has a test") {
  const std::set<std::string> known = test_cases();
  const std::vector<std::string> rows = rows_of("What dies, and what the client sees");
  REQUIRE(rows.size() >= 5);
  for (const std::string& row : rows) {
    INFO(row);
    const std::vector<std::string> cells = cells_of(row);
    REQUIRE(cells.size() == 6);  // stage, four that die, tests
    for (const std::string& cell : cells) CHECK_FALSE(cell.empty());
    const std::vector<std::string> tests = quoted(cells.back());
    CHECK_FALSE(tests.empty());
    check_tests(tests, known);
  }
}

TEST_CASE("docs: who ends a connection, each with a test") {
  const std::set<std::string> known = test_cases();
  const std::vector<std::string> rows = rows_of("Who ends a connection");
  REQUIRE(rows.size() >= 7);
  for (const std::string& row : rows) {
    INFO(row);
    const std::vector<std::string> cells = cells_of(row);
    REQUIRE(cells.size() == 3);
    const std::vector<std::string> tests = quoted(cells.back());
    CHECK_FALSE(tests.empty());
    check_tests(tests, known);
  }
}
