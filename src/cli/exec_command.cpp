// SPDX-License-Identifier: MIT
// tcpmig exec [--inetd] -- PROGRAM..
#include <CLI/CLI.hpp>
#include <memory>
#include <set>

#include <unistd.h>

#include "cli/context.hpp"
#include "cli/failure.hpp"
#include "cli/options.hpp"
#include "exec/exec.hpp"
#include "exec/inetd.hpp"

namespace tcpmig::cli {
namespace {

struct Exec {
  bool inetd = false;
  exec::InetdOptions options;
};

/// The port of the configuration's pools, where it is one.
std::uint16_t port_of(const config::Config& config, const config::Node& self) {
  std::set<std::uint16_t> ports;
  for (const config::Pool& pool : config.pools)
    for (const config::PoolServer& server : pool.servers)
      if (server.node_id == self.id && server.handoff.empty()) ports.insert(server.port);
  if (ports.size() == 1) return *ports.begin();
  throw Failure(kUsage, ports.empty() ? "no pool has a server on " + self.name + ": say --port N"
                                      : self.name + " has servers on several ports: say --port N");
}

int serve(const config::Config& config, const config::Node& self, exec::InetdOptions options) {
  if (options.port == 0) options.port = port_of(config, self);
  if (::geteuid() == 0 && options.user.empty())
    throw Failure(
        kUsage,
        "as root it must be told as which user the program shall run: say --user www-data "
        "(or --user root)");
  return exec::serve_inetd(exec::place_of(config, self), options);
}

int run(const Globals& globals, const Exec& exec, const std::vector<std::string>& command) {
  refuse_json(globals, "exec");
  if (command.empty())
    throw Failure(kUsage, "no program: write `tcpmig exec -- PROGRAM ARGUMENTS..`");
  const config::Config config = load_config(globals);
  const config::Node& self = this_node(config, globals, config::Role::kServer);
  if (!exec.inetd) {
    exec::become(config, self, command);
    return kFailed;  // never: it has become the program, or thrown
  }
  role_log(globals, "exec " + self.name);
  exec::InetdOptions options = exec.options;
  options.command = command;
  return serve(config, self, std::move(options));
}

constexpr const char* kAbout =
    "Run a server so that it takes migrated connections in on a kernel without kernel resume: its "
    "accept() returns them among the others. On a kernel that has it nothing is different";

}  // namespace

void add_exec(CLI::App& app, Globals& globals, Action& action,
              const std::vector<std::string>& command) {
  CLI::App* verb = app.add_subcommand("exec", kAbout);
  const auto exec = std::make_shared<Exec>();
  auto* inetd = verb->add_flag("--inetd", exec->inetd,
                               "Listen, and run the program once for each connection, which is its "
                               "standard input and output");
  verb->add_option("--port", exec->options.port,
                   "Where --inetd listens (default: the port that the pools say)")
      ->needs(inetd)
      ->check(number(1, 65'535))
      ->type_name("N");
  verb->add_option("--user", exec->options.user,
                   "As whom --inetd and the program run; must be said where root starts it")
      ->needs(inetd)
      ->type_name("NAME");
  verb->add_option("--children", exec->options.children, "How many programs at a time")
      ->needs(inetd)
      ->check(number(1, 100'000))
      ->capture_default_str()
      ->type_name("N");
  verb->footer(footer("sudo tcpmig exec -- nginx -g 'daemon off;'", kOfNodeNoJson) +
               "\n  sudo tcpmig exec --inetd --user www-data -- busybox httpd -i -h /srv/www");
  verb->callback([&globals, &action, &command, exec] {
    action = [&globals, &command, exec] { return run(globals, *exec, command); };
  });
}

}  // namespace tcpmig::cli
