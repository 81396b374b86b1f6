// SPDX-License-Identifier: MIT
// tcpmig switch up|down|run
#include <CLI/CLI.hpp>
#include <iostream>
#include <nlohmann/json.hpp>

#include "cli/context.hpp"
#include "switch/switch.hpp"

namespace tcpmig::cli {
namespace {

int up(const Globals& globals) {
  const config::Config config = load_config(globals);
  const config::Switch& self = this_switch(config, globals);
  require_root("switch up");
  quiet_log(globals);
  steering::up(config, self);
  const nlohmann::json status = steering::status(config, self);
  if (globals.json) {
    print_json(status);
    return 0;
  }
  std::cout << "switch " << self.name << " is up:";
  for (const auto& attached : status.at("attached"))
    std::cout << (attached == status.at("attached").front() ? " " : ", ")
              << attached.at("interface").get<std::string>() << " ("
              << attached.at("side").get<std::string>() << ", "
              << attached.at("hook").get<std::string>() << ")";
  std::cout << "\nKeep `tcpmig switch run` running: it re-attaches, follows the nodes and sweeps "
               "dead flows."
            << std::endl;
  return 0;
}

int down(const Globals& globals) {
  const config::Config config = load_config(globals);
  const config::Switch& self = this_switch(config, globals);
  require_root("switch down");
  quiet_log(globals);
  steering::down(config, self);
  if (globals.json)
    print_json({{"role", "switch"}, {"node", self.name}, {"up", false}});
  else
    std::cout << "switch " << self.name << " is down; routes and sysctls are as they were"
              << std::endl;
  return 0;
}

int run(const Globals& globals) {
  refuse_json(globals, "switch run");
  const config::Config config = load_config(globals);
  const config::Switch& self = this_switch(config, globals);
  require_root("switch run");
  role_log(globals, "switch " + self.name);
  return steering::run(config, self);
}

}  // namespace

void add_switch(CLI::App& app, Globals& globals, Action& action) {
  CLI::App* noun = app.add_subcommand(
      "switch", "Steer packets between clients, dispatchers and servers (an L3 router)");
  noun->require_subcommand(1);
  noun->add_subcommand(
          "up", "Load, fill and attach the programs, set routes and sysctls; live flows survive")
      ->footer("\nExample: sudo tcpmig switch up --node switch1")
      ->callback([&] { action = [&] { return up(globals); }; });
  noun->add_subcommand("down", "Detach and give everything back, also after a crash")
      ->footer("\nExample: sudo tcpmig switch down")
      ->callback([&] { action = [&] { return down(globals); }; });
  noun->add_subcommand("run",
                       "up, then stay: re-attach, follow the nodes, sweep, answer `status`; the "
                       "programs stay at the end")
      ->footer("\nExample: sudo tcpmig switch run --config /etc/tcpmig/tcpmig.toml")
      ->callback([&] { action = [&] { return run(globals); }; });
}

}  // namespace tcpmig::cli
