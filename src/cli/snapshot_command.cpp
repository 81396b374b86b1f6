// SPDX-License-Identifier: MIT
// tcpmig snapshot show FILE
#include <CLI/CLI.hpp>
#include <iostream>
#include <memory>
#include <nlohmann/json.hpp>

#include "cli/context.hpp"
#include "cli/options.hpp"
#include "cli/snapshot_text.hpp"
#include "manual/snapshot_file.hpp"

namespace tcpmig::cli {
namespace {

int show(const Globals& globals, const std::filesystem::path& file) {
  const Snapshot snapshot = manual::read_snapshot(file);
  if (globals.json)
    print_json(to_json(snapshot));
  else
    std::cout << to_text(snapshot) << std::flush;
  return 0;
}

}  // namespace

void add_snapshot(CLI::App& app, Globals& globals, Action& action) {
  CLI::App* noun = app.add_subcommand("snapshot", "Files with a frozen connection");
  noun->require_subcommand(1);
  noun->footer(group_footer("snapshot", kOfAll));
  CLI::App* verb = noun->add_subcommand(
      "show", "Say everything that a snapshot file holds, with the first bytes of its queues");
  const auto file = std::make_shared<std::filesystem::path>();
  verb->add_option("FILE", *file, "What `tcpmig freeze` has written")->required();
  verb->footer(footer("tcpmig snapshot show c.snap", kOfAll));
  verb->callback(
      [&globals, &action, file] { action = [&globals, file] { return show(globals, *file); }; });
}

}  // namespace tcpmig::cli
