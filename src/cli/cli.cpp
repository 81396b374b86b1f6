// SPDX-License-Identifier: MIT
#include "cli/cli.hpp"

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstdio>
#include <iostream>

#include "cli/context.hpp"
#include "cli/failure.hpp"

namespace tcpmig::cli {
namespace {

const char* const kAbout =
    "tcpmig moves live TCP connections: a dispatcher accepts one, reads the request and hands the "
    "connection to the server that shall "
    "answer; the switch steers the packets.";

const char* const kFooter = R"(
Examples:
  sudo tcpmig lab demo
  sudo tcpmig lab up
  sudo tcpmig lab exec server1 -- mini_httpd -u root -p 80 -d /usr/share/doc
  sudo tcpmig lab exec client1 -- curl -s http://203.0.113.10/
  tcpmig config check /etc/tcpmig/tcpmig.toml
  sudo tcpmig switch run

Exit codes: 0 done; 1 failed; 2 wrong usage or configuration; 3 a right or a kernel feature is missing;
4 already running; 5 not found. `lab exec` ends with the command's own code, 126 or 127 when it cannot be
started; `lab demo` with 130 when it is interrupted.

Environment: TCPMIG_CONFIG and TCPMIG_NODE stand for --config and --node; TCPMIG_LOG is the least
important message to log: trace, debug, info, warning, error or off.)";

void add_globals(CLI::App& app, Globals& globals) {
  app.add_option("--config", globals.config, "The cluster's configuration file")
      ->envname("TCPMIG_CONFIG")
      ->capture_default_str()
      ->type_name("FILE");
  app.add_option(
         "--node", globals.node,
         "Which switch or node of the configuration this machine is (default: the host name)")
      ->envname("TCPMIG_NODE")
      ->type_name("NAME");
  app.add_flag("--json", globals.json, "Print JSON and nothing else to stdout");
  app.add_flag("-v,--verbose", globals.verbose, "Log more, to stderr");
}

/// The words of a command line; what stands after "--" in `exec -- PROGRAM..`, `lab exec NODE -- COMMAND..` and
/// `resume FILE -- PROGRAM..` is kept apart, since it is not ours to read.
struct Words {
  std::vector<std::string> ours;
  std::vector<std::string> command;
};
Words split(int argc, char** argv) {
  Words words;
  words.ours.assign(argv + std::min(argc, 1), argv + argc);
  const auto mark = std::find(words.ours.begin(), words.ours.end(), "--");
  const auto takes_command = [](const std::string& word) {
    return word == "exec" || word == "resume";
  };
  if (mark == words.ours.end() || std::none_of(words.ours.begin(), mark, takes_command))
    return words;
  words.command.assign(mark + 1, words.ours.end());
  words.ours.erase(mark, words.ours.end());
  return words;
}

/// The deepest sub-command that was named: its --help is the one to point at.
std::string named_command(const CLI::App& app) {
  std::string name = "tcpmig";
  for (const CLI::App* at = &app; !at->get_subcommands().empty();) {
    at = at->get_subcommands().front();
    name += " " + at->get_name();
  }
  return name;
}

int parse_and_run(int argc, char** argv) {
  const Words words = split(argc, argv);
  CLI::App app(kAbout, "tcpmig");
  app.footer(kFooter);
  app.fallthrough();  // --json and the like may stand anywhere
  app.require_subcommand(1);
  app.get_formatter()->column_width(34);
  Globals globals;
  Action action;
  add_globals(app, globals);
  add_switch(app, globals, action);
  add_dispatcher(app, globals, action);
  add_agent(app, globals, action);
  add_exec(app, globals, action, words.command);
  add_lab(app, globals, action, words.command);
  add_status(app, globals, action);
  add_flows(app, globals, action);
  add_config(app, globals, action);
  add_secret(app, globals, action);
  add_freeze(app, globals, action);
  add_resume(app, globals, action, words.command);
  add_repair_helper(app, globals, action);
  add_snapshot(app, globals, action);
  add_doctor(app, globals, action);
  add_version(app, globals, action);
  try {
    app.parse(std::vector<std::string>(words.ours.rbegin(), words.ours.rend()));
  } catch (const CLI::CallForHelp& help) {
    return app.exit(help);
  } catch (const CLI::ParseError& error) {
    throw Failure(kUsage, std::string(error.what()) + " (see `" + named_command(app) + " --help`)");
  }
  return action();
}

}  // namespace

int run(int argc, char** argv) noexcept {
  try {
    const int code = parse_and_run(argc, argv);
    std::cout.flush();
    // whoever reads our output must not take a part of it for the whole
    if (!std::cout) throw std::runtime_error("cannot write to the standard output");
    return code;
  } catch (const std::exception& error) {
    try {
      const Verdict verdict = judge(error);
      std::cout.flush();
      std::cerr << "tcpmig: " << verdict.line << std::endl;
      return verdict.code;
    } catch (...) {
      return kFailed;
    }
  } catch (...) {
    std::fputs("tcpmig: failed for an unknown reason\n", stderr);
    return kFailed;
  }
}

}  // namespace tcpmig::cli
