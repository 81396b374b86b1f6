// SPDX-License-Identifier: MIT
#include "cli/options.hpp"

#include <charconv>

namespace tcpmig::cli {

namespace {

std::string also(const char* options) {
  return std::string("\nAlso (`tcpmig --help` explains them): ") + options + "\n";
}

}  // namespace

std::string footer(const std::string& example, const char* options) {
  return also(options) + "Example: " + example;
}

std::string group_footer(const std::string& name, const char* options) {
  return also(options) + "Each has a --help of its own: tcpmig " + name + " VERB --help";
}

std::string one_of(const std::vector<std::string>& words) {
  std::string text;
  for (std::size_t i = 0; i < words.size(); ++i)
    text += (i == 0 ? "" : i + 1 == words.size() ? " or " : ", ") + words[i];
  return text;
}

CLI::Validator number(unsigned low, unsigned high) {
  const auto test = [low, high](const std::string& word) -> std::string {
    unsigned value = 0;
    const char* end = word.data() + word.size();
    const auto [read, error] = std::from_chars(word.data(), end, value);
    if (error == std::errc() && read == end && value >= low && value <= high) return {};
    return word + " is not in " + std::to_string(low) + ".." + std::to_string(high);
  };
  return {[test](std::string& word) { return test(word); }, "", ""};
}

}  // namespace tcpmig::cli
