// SPDX-License-Identifier: MIT
#pragma once
#include <CLI/CLI.hpp>
#include <map>
#include <string>

/// Options as people type them: words instead of numbers of enums, and messages that say what to
/// write.
namespace tcpmig::cli {

// Which of the options of `tcpmig` itself mean something to a sub-command, for its help.
inline constexpr const char* kOfNode = "--config FILE, --node NAME, --json, -v";
inline constexpr const char* kOfNodeNoJson = "--config FILE, --node NAME, -v (no --json)";
inline constexpr const char* kOfFile = "--config FILE, --json, -v";
inline constexpr const char* kOfAll = "--json, -v";
inline constexpr const char* kOfAllNoJson = "-v (no --json)";
/// The end of a sub-command's help.
std::string footer(const std::string& example, const char* options);
/// The same of one that only has sub-commands.
std::string group_footer(const std::string& name, const char* options);

/// "mini_httpd, nginx or node"
std::string one_of(const std::vector<std::string>& words);

/// The value that a word stands for; nothing else is taken, not even the enum's number.
template <typename Value>
Value chosen(const std::string& option, const std::string& word,
             const std::vector<std::pair<std::string, Value>>& choices) {
  std::vector<std::string> words;
  for (const auto& [name, value] : choices) {
    if (name == word) return value;
    words.push_back(name);
  }
  throw CLI::ValidationError(option, "\"" + word + "\" is not known here: write " + one_of(words));
}

/// For check(): a whole number from `low` to `high`, and a message that says so.
CLI::Validator number(unsigned low, unsigned high);

}  // namespace tcpmig::cli
