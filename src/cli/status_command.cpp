// SPDX-License-Identifier: MIT
// tcpmig status: every role of this node, by its socket where it runs, else by its pins
#include <CLI/CLI.hpp>
#include <filesystem>
#include <iostream>
#include <nlohmann/json.hpp>

#include "cli/context.hpp"
#include "cli/failure.hpp"
#include "cli/render.hpp"
#include "control/status_socket.hpp"
#include "switch/switch.hpp"

namespace tcpmig::cli {
namespace {

using Json = nlohmann::json;

bool has_pins(const sys::RolePaths& paths, const std::string& role) {
  std::error_code ignored;
  return std::filesystem::exists(paths.pins(role), ignored);
}

/// null: nothing of this role is here.
Json role_status(const config::Config& config, const std::string& node, const std::string& role) {
  const sys::RolePaths paths = config.paths(node);
  if (auto answer = control::query_status(paths.socket(role))) return *answer;
  if (!has_pins(paths, role)) return nullptr;
  if (const config::Switch* self = config.find_switch(node); self != nullptr && role == "switch")
    return steering::status(config, *self);
  return {{"role", role},
          {"node", node},
          {"pid", nullptr},
          {"ready", false},
          {"pinned", paths.pins(role).string()}};
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
  noun->footer("\nExample: sudo tcpmig status --json");
  noun->callback([&] { action = [&] { return status(globals); }; });
}

}  // namespace tcpmig::cli
