// SPDX-License-Identifier: MIT
#include <cerrno>
#include <cstring>
#include <fstream>
#include <sstream>

#include <toml++/toml.h>

#include "config/sections.hpp"

namespace tcpmig::config {
namespace {

constexpr std::size_t kMaxFile = 16 * 1024 * 1024;

}  // namespace

std::expected<Config, std::vector<Problem>> load(const std::filesystem::path& file) {
  const auto refuse = [&](const std::string& what, const std::string& fix) {
    return std::unexpected(std::vector{Problem{file.string(), 0, 0, what, fix}});
  };
  std::error_code error;
  if (std::filesystem::is_directory(file, error))
    return refuse("it is a directory", "name the file in it");
  std::ifstream stream(file, std::ios::binary);
  if (!stream)
    return refuse(std::string("cannot be read (") + std::strerror(errno) + ")",
                  "give the right file with --config or TCPMIG_CONFIG");
  std::string text;
  for (char block[65'536]; stream.read(block, sizeof block), stream.gcount() > 0;) {
    text.append(block, static_cast<std::size_t>(stream.gcount()));
    if (text.size() > kMaxFile)
      return refuse("it is larger than 16 MB", "this cannot be the configuration");
  }
  if (stream.bad()) return refuse("cannot be read", "check the file system");
  return parse(text, file.string());
}

std::expected<Config, std::vector<Problem>> parse(std::string_view text, const std::string& name) {
  Problems problems(name);
  try {
    const toml::table table = toml::parse(text, name);
    Draft draft = read_sections(table, problems);
    draft.config.file = name;
    check(draft, problems);
    if (problems.empty()) return std::move(draft.config);
  } catch (const toml::parse_error& error) {
    const auto& begin = error.source().begin;
    problems.add({begin.line, begin.column}, std::string(error.description()),
                 "the file must be TOML (https://toml.io/en/v1.0.0)");
  }
  return std::unexpected(problems.take());
}

}  // namespace tcpmig::config
