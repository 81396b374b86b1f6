// SPDX-License-Identifier: MIT
// tcpmig config check [FILE]
#include <CLI/CLI.hpp>
#include <iostream>
#include <memory>
#include <nlohmann/json.hpp>

#include "cli/context.hpp"
#include "cli/failure.hpp"
#include "cli/options.hpp"

namespace tcpmig::cli {
namespace {

std::string counted(std::size_t count, const std::string& what) {
  return std::to_string(count) + " " + what + (count == 1 ? "" : what == "switch" ? "es" : "s");
}

std::string summary(const config::Config& config) {
  return counted(config.switches.size(), "switch") + ", " +
         counted(config.with_role(config::Role::kDispatcher).size(), "dispatcher") + ", " +
         counted(config.with_role(config::Role::kServer).size(), "server") + ", " +
         counted(config.services.size(), "service") + ", " + counted(config.pools.size(), "pool");
}

int check(const Globals& globals, const std::filesystem::path& file) {
  const auto result = config::load(file);
  const std::vector<config::Problem> problems =
      result ? std::vector<config::Problem>{} : result.error();
  if (globals.json) {
    nlohmann::json list = nlohmann::json::array();
    for (const config::Problem& p : problems)
      list.push_back({{"file", p.file},
                      {"line", p.line},
                      {"column", p.column},
                      {"what", p.what},
                      {"fix", p.fix}});
    print_json({{"file", file.string()}, {"ok", problems.empty()}, {"problems", list}});
  } else if (problems.empty()) {
    std::cout << file.string() << " is good: " << summary(*result) << std::endl;
  } else {
    for (const config::Problem& problem : problems) std::cerr << problem.str() << "\n";
    std::cerr << counted(problems.size(), "problem") << std::endl;
  }
  return problems.empty() ? kDone : kUsage;
}

}  // namespace

void add_config(CLI::App& app, Globals& globals, Action& action) {
  CLI::App* noun = app.add_subcommand("config", "The cluster's configuration file");
  noun->require_subcommand(1);
  noun->footer(group_footer("config", kOfFile));
  CLI::App* verb = noun->add_subcommand(
      "check", "Say all that is wrong with the file: line, column, and the fix");
  const auto file = std::make_shared<std::filesystem::path>();
  verb->add_option("FILE", *file, "The file to check (default: that of --config)");
  verb->footer(footer("tcpmig config check /etc/tcpmig/tcpmig.toml", kOfFile));
  verb->callback([&globals, &action, file] {
    action = [&globals, file] { return check(globals, file->empty() ? globals.config : *file); };
  });
}

}  // namespace tcpmig::cli
