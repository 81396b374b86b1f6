// SPDX-License-Identifier: MIT
// tcpmig doctor [--role ROLE]
#include <CLI/CLI.hpp>
#include <algorithm>
#include <iostream>
#include <memory>
#include <nlohmann/json.hpp>

#include "cli/context.hpp"
#include "cli/failure.hpp"
#include "cli/options.hpp"
#include "cli/text_table.hpp"
#include "doctor/doctor.hpp"

namespace tcpmig::cli {
namespace {

using doctor::Finding;
using doctor::Verdict;

const std::string kAbout = R"(
Every check tries the thing itself, in a process and a network namespace of its own; nothing of this machine is changed and
nothing is left behind. The verdicts:
  ok            it is there
  works around  it is not there; tcpmig does without, and this is what it costs
  missing       it is not there, and something does not work; this is how to mend it
  not run       trying it takes rights that this user has not
Ends with 0 when nothing is missing and everything was tried, else with 1. (`tcpmig agent check` looks at a server with its configuration.)
)";

const std::vector<std::pair<std::string, unsigned>> kRoles{{"library", doctor::kLibrary},
                                                           {"agent", doctor::kAgent},
                                                           {"dispatcher", doctor::kDispatcher},
                                                           {"switch", doctor::kSwitch}};

std::vector<std::string> role_names(unsigned roles) {
  std::vector<std::string> names;
  for (const auto& [name, role] : kRoles)
    if ((roles & role) != 0) names.push_back(name);
  return names;
}

bool is_good(const Finding& finding) {
  return finding.verdict == Verdict::kOk || finding.verdict == Verdict::kWorksAround;
}

void print(const std::vector<Finding>& findings) {
  std::vector<std::vector<std::string>> rows;
  for (const Finding& finding : findings)
    rows.push_back({finding.verdict == Verdict::kMissing ? "MISSING" : to_string(finding.verdict),
                    finding.name, finding.detail});
  std::cout << aligned(rows);
  for (const Finding& finding : findings)
    if (finding.verdict == Verdict::kMissing || finding.verdict == Verdict::kWorksAround)
      std::cout << "\n"
                << finding.name << " (" << one_of(role_names(finding.roles))
                << "): " << finding.cost << "\n  do: " << finding.fix << "\n";
  const auto not_run = std::ranges::count(findings, Verdict::kNotRun, &Finding::verdict);
  if (not_run > 0)
    std::cout
        << "\n"
        << not_run
        << " checks could not be tried by this user: run `sudo tcpmig doctor`.\nWithout rights "
           "`snapshot show`, `config check`, `secret`, `version` and `doctor` work; where "
           "tcp_repair is ok all the same, so does the library in a user and network "
           "namespace of one's own.\n";
  std::cout << std::flush;
}

void print_as_json(const std::vector<Finding>& findings, bool good) {
  nlohmann::json list = nlohmann::json::array();
  for (const Finding& finding : findings)
    list.push_back({{"name", finding.name},
                    {"roles", role_names(finding.roles)},
                    {"verdict", to_string(finding.verdict)},
                    {"detail", finding.detail},
                    {"cost", finding.cost},
                    {"fix", finding.fix}});
  print_json({{"ok", good}, {"checks", list}});
}

int examine(const Globals& globals, unsigned roles) {
  quiet_log(globals);
  const std::vector<Finding> findings = doctor::examine(roles);
  const bool good = std::ranges::all_of(findings, is_good);
  if (globals.json)
    print_as_json(findings, good);
  else
    print(findings);
  return good ? kDone : kFailed;
}

}  // namespace

void add_doctor(CLI::App& app, Globals& globals, Action& action) {
  CLI::App* verb = app.add_subcommand(
      "doctor", "Try what this kernel and this machine have of what tcpmig needs");
  const auto roles = std::make_shared<unsigned>(doctor::kEverything);
  verb->add_option_function<std::string>(
          "--role", [roles](const std::string& word) { *roles = chosen("--role", word, kRoles); },
          "Only what this role relies on (default: all)")
      ->type_name("library|agent|dispatcher|switch");
  verb->footer(kAbout + footer("sudo tcpmig doctor --role agent", kOfAll));
  verb->callback([&globals, &action, roles] {
    action = [&globals, roles] { return examine(globals, *roles); };
  });
}

}  // namespace tcpmig::cli
