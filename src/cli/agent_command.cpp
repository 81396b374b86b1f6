// SPDX-License-Identifier: MIT
// tcpmig agent run|down|check
#include <CLI/CLI.hpp>
#include <algorithm>
#include <iostream>
#include <nlohmann/json.hpp>

#include "agent/agent.hpp"
#include "cli/context.hpp"
#include "cli/failure.hpp"
#include "cli/options.hpp"
#include "cli/text_table.hpp"

namespace tcpmig::cli {
namespace {

int run(const Globals& globals) {
  refuse_json(globals, "agent run");
  const config::Config config = load_config(globals);
  const config::Node& self = this_node(config, globals, config::Role::kServer);
  require_root("agent run");
  role_log(globals, "agent " + self.name);
  return agent::run(config, self);
}

int down(const Globals& globals) {
  const config::Config config = load_config(globals);
  const config::Node& self = this_node(config, globals, config::Role::kServer);
  require_root("agent down");
  quiet_log(globals);
  agent::down(config, self);
  if (globals.json)
    print_json({{"role", "agent"}, {"node", self.name}, {"up", false}});
  else
    std::cout << "agent " << self.name << " is down; routes, rules and sysctls are as they were"
              << std::endl;
  return kDone;
}

void print_findings(const std::vector<agent::Finding>& findings) {
  std::vector<std::vector<std::string>> rows;
  for (const agent::Finding& finding : findings)
    rows.push_back({finding.ok ? "ok" : "MISSING", finding.name, finding.detail});
  std::cout << aligned(rows);
  for (const agent::Finding& finding : findings)
    if (!finding.ok)
      std::cout << "\n"
                << finding.name << ": " << finding.cost << "\n  do: " << finding.fix << "\n";
}

int check(const Globals& globals) {
  const config::Config config = load_config(globals);
  const config::Node& self = this_node(config, globals, config::Role::kServer);
  quiet_log(globals);
  const std::vector<agent::Finding> findings = agent::check(config, self);
  const bool ok =
      std::all_of(findings.begin(), findings.end(), [](const agent::Finding& f) { return f.ok; });
  if (globals.json) {
    nlohmann::json list = nlohmann::json::array();
    for (const agent::Finding& f : findings)
      list.push_back(
          {{"name", f.name}, {"ok", f.ok}, {"detail", f.detail}, {"cost", f.cost}, {"fix", f.fix}});
    print_json({{"node", self.name}, {"ok", ok}, {"findings", list}});
  } else {
    print_findings(findings);
  }
  return ok ? kDone : kMissing;
}

}  // namespace

void add_agent(CLI::App& app, Globals& globals, Action& action) {
  CLI::App* noun = app.add_subcommand("agent", "Take live connections in on a server");
  noun->require_subcommand(1);
  noun->footer(group_footer("agent", kOfNode));
  noun->add_subcommand(
          "run", "Run the agent of this server until SIGTERM or SIGINT; connections outlive it")
      ->footer(footer("sudo tcpmig agent run --node server1", kOfNodeNoJson))
      ->callback([&] { action = [&] { return run(globals); }; });
  noun->add_subcommand("down", "Remove its programs, routes, rules and sysctls, also after a crash")
      ->footer(footer("sudo tcpmig agent down", kOfNode))
      ->callback([&] { action = [&] { return down(globals); }; });
  noun->add_subcommand("check",
                       "Say what this machine has and lacks; changes nothing. Ends with 3 when "
                       "something is missing")
      ->footer(footer("sudo tcpmig agent check --json", kOfNode))
      ->callback([&] { action = [&] { return check(globals); }; });
}

}  // namespace tcpmig::cli
