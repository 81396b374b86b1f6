// SPDX-License-Identifier: MIT
// tcpmig status: every role of this node, by its socket where it runs, else by its pins
#include <CLI/CLI.hpp>
#include <filesystem>
#include <iostream>
#include <nlohmann/json.hpp>

#include "cli/context.hpp"
#include "cli/failure.hpp"
#include "cli/options.hpp"
#include "cli/render.hpp"
#include "control/status_socket.hpp"
#include "switch/switch.hpp"

namespace tcpmig::cli {
namespace {

using Json = nlohmann::json;

bool is_there(const std::filesystem::path& path) {
  std::error_code ignored;
  return std::filesystem::exists(path, ignored);
}

/// null: nothing of this role is here. Where it was killed, its pins and what it has changed (its
/// ledger) are.
Json role_status(const config::Config& config, const std::string& node, const std::string& role) {
  const sys::RolePaths paths = config.paths(node);
  if (auto answer = control::query_status(paths.socket(role))) return *answer;
  const bool pinned = is_there(paths.pins(role));
  const bool ledger = is_there(paths.ledger(role));
  if (!pinned && !ledger) return nullptr;
  if (const config::Switch* self = config.find_switch(node);
      self != nullptr && role == "switch" && pinned)
    return steering::status(config, *self);
  Json left{{"role", role},
            {"node", node},
            {"pid", nullptr},
            {"ready", false},
            {"give_back_with", "tcpmig " + role + " down"}};
  if (pinned) left["pinned"] = paths.pins(role).string();
  if (ledger) left["ledger"] = paths.ledger(role).string();
  return left;
}

int status(const Globals& globals) {
  const config::Config config = load_config(globals);
  const std::string node = this_name(config, globals);
  require_root("status");
  quiet_log(globals);
  Json roles = Json::array();
  for (const char* role : {"switch", "dispatcher", "agent"})
    if (Json found = role_status(config, node, role); !found.is_null())
      roles.push_back(std::move(found));
  if (globals.json)
    print_json({{"node", node}, {"roles", roles}});
  else
    for (const Json& role : roles) std::cout << render_status(role) << std::flush;
  if (roles.empty()) throw Failure(kNotFound, "nothing of tcpmig is up on " + node);
  return kDone;
}

}  // namespace

void add_status(CLI::App& app, Globals& globals, Action& action) {
  CLI::App* noun = app.add_subcommand("status",
                                      "What the roles of this node say of themselves; works for a "
                                      "switch that is up without `run`, too");
  noun->footer(footer("sudo tcpmig status --json", kOfNode));
  noun->callback([&] { action = [&] { return status(globals); }; });
}

}  // namespace tcpmig::cli
