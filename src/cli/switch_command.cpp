// SPDX-License-Identifier: MIT
// tcpmig switch up|down|run
#include <CLI/CLI.hpp>
#include <iostream>
#include <memory>
#include <nlohmann/json.hpp>

#include "cli/context.hpp"
#include "cli/options.hpp"
#include "switch/switch.hpp"

namespace tcpmig::cli {
namespace {

/// --datapath, if it was given, stands above the file.
struct Datapath {
  config::Datapath datapath = config::Datapath::kAuto;
  const CLI::Option* option = nullptr;
};

config::Switch chosen(config::Switch self, const Datapath& given) {
  if (given.option->count() > 0) self.datapath = given.datapath;
  return self;
}

int up(const Globals& globals, const Datapath& given) {
  const config::Config config = load_config(globals);
  const config::Switch self = chosen(this_switch(config, globals), given);
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

int run(const Globals& globals, const Datapath& given) {
  refuse_json(globals, "switch run");
  const config::Config config = load_config(globals);
  const config::Switch self = chosen(this_switch(config, globals), given);
  require_root("switch run");
  role_log(globals, "switch " + self.name);
  return steering::run(config, self);
}

void add_option(CLI::App& verb, Datapath& given) {
  given.option = add_datapath(
      verb, given.datapath,
      "Instead of `datapath` of the file: auto (XDP where the drivers have it), tc or xdp");
}

}  // namespace

void add_switch(CLI::App& app, Globals& globals, Action& action) {
  CLI::App* noun = app.add_subcommand(
      "switch", "Steer packets between clients, dispatchers and servers (an L3 router)");
  noun->require_subcommand(1);
  noun->footer(group_footer("switch", kOfNode));
  const auto given_up = std::make_shared<Datapath>(), given_run = std::make_shared<Datapath>();
  CLI::App* verb_up = noun->add_subcommand(
      "up", "Load, fill and attach the programs, set routes and sysctls; live flows survive");
  add_option(*verb_up, *given_up);
  verb_up->footer(footer("sudo tcpmig switch up --node switch1 --datapath tc", kOfNode))
      ->callback([&, given_up] { action = [&, given_up] { return up(globals, *given_up); }; });
  noun->add_subcommand("down", "Detach and give everything back, also after a crash")
      ->footer(footer("sudo tcpmig switch down", kOfNode))
      ->callback([&] { action = [&] { return down(globals); }; });
  CLI::App* verb_run = noun->add_subcommand(
      "run",
      "up, then stay: re-attach, follow the nodes, sweep, answer `status`; the programs stay at "
      "the end");
  add_option(*verb_run, *given_run);
  verb_run->footer(footer("sudo tcpmig switch run --config /etc/tcpmig/tcpmig.toml", kOfNodeNoJson))
      ->callback([&, given_run] { action = [&, given_run] { return run(globals, *given_run); }; });
}

}  // namespace tcpmig::cli
