// SPDX-License-Identifier: MIT
// tcpmig dispatcher run|down
#include <CLI/CLI.hpp>
#include <iostream>
#include <nlohmann/json.hpp>

#include "cli/context.hpp"
#include "cli/failure.hpp"
#include "cli/options.hpp"
#include "dispatcher/dispatcher.hpp"

namespace tcpmig::cli {
namespace {

int run(const Globals& globals) {
  refuse_json(globals, "dispatcher run");
  const config::Config config = load_config(globals);
  const config::Node& self = this_node(config, globals, config::Role::kDispatcher);
  require_root("dispatcher run");
  role_log(globals, "dispatcher " + self.name);
  return dispatcher::run(config, self);
}

int down(const Globals& globals) {
  const config::Config config = load_config(globals);
  const config::Node& self = this_node(config, globals, config::Role::kDispatcher);
  require_root("dispatcher down");
  quiet_log(globals);
  dispatcher::down(config, self);
  if (globals.json)
    print_json({{"role", "dispatcher"}, {"node", self.name}, {"up", false}});
  else
    std::cout << "dispatcher " << self.name
              << " is down; routes, rules and sysctls are as they were" << std::endl;
  return kDone;
}

}  // namespace

void add_dispatcher(CLI::App& app, Globals& globals, Action& action) {
  CLI::App* noun = app.add_subcommand("dispatcher",
                                      "Accept connections, read the request, hand them to servers");
  noun->require_subcommand(1);
  noun->footer(group_footer("dispatcher", kOfNode));
  noun->add_subcommand("run", "Run the dispatcher of this node until SIGTERM or SIGINT")
      ->footer(footer("sudo tcpmig dispatcher run --node dispatcher1", kOfNodeNoJson))
      ->callback([&] { action = [&] { return run(globals); }; });
  noun->add_subcommand("down",
                       "Give back what a dispatcher that was killed has left: routes, rules, "
                       "sysctls, its cgroup (one that ends by itself does so)")
      ->footer(footer("sudo tcpmig dispatcher down", kOfNode))
      ->callback([&] { action = [&] { return down(globals); }; });
}

}  // namespace tcpmig::cli
