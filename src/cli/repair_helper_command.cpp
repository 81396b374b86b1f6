// SPDX-License-Identifier: MIT
// tcpmig repair-helper
#include <CLI/CLI.hpp>
#include <memory>

#include "cli/context.hpp"
#include "cli/failure.hpp"
#include "cli/options.hpp"
#include "helper/helper.hpp"

namespace tcpmig::cli {
namespace {

const std::string kAbout = R"(
A program that uses the library and has no rights names this socket by set_repair_helper(); what takes CAP_NET_ADMIN is done here
then, with the descriptor of its connection: TCP_REPAIR, large buffers, a made-up FIN. For sockets of the network namespace
that this is started in; one for each.

Who may ask can make up connections of this network namespace, with any address and port of it: name the account of
the service and nobody else (docs/security.md). Members of a --group and those of --allow-user may ask, and root.
This process keeps CAP_NET_ADMIN and nothing else, and removes its socket on SIGTERM.
)";

constexpr const char* kExample =
    R"(sudo tcpmig repair-helper --allow-user www-data
         sudo tcpmig repair-helper --socket /run/echo/repair.sock --group echo --allow mark)";

void allow(helper::Options& options, const std::string& word) {
  using Member = bool helper::Options::*;
  static const std::vector<std::pair<std::string, Member>> kWords{
      {"mark", &helper::Options::allow_mark}, {"priority", &helper::Options::allow_priority}};
  options.*chosen("--allow", word, kWords) = true;
}

int help_to_repair(const Globals& globals, const helper::Options& options) {
  refuse_json(globals, "repair-helper");
  role_log(globals, "repair-helper");
  helper::run(options);
  return kDone;
}

}  // namespace

void add_repair_helper(CLI::App& app, Globals& globals, Action& action) {
  CLI::App* verb = app.add_subcommand(
      "repair-helper", "Let programs without rights move their own connections (libtcpmig)");
  const auto options = std::make_shared<helper::Options>();
  verb->add_option("--socket", options->socket, "Where to listen")
      ->capture_default_str()
      ->type_name("PATH");
  verb->add_option("--group", options->group, "The socket's group; its members may ask")
      ->type_name("NAME");
  verb->add_option("--allow-user", options->users, "A user who may ask; may be repeated")
      ->type_name("NAME")
      ->allow_extra_args(false);
  verb->add_option_function<std::vector<std::string>>(
          "--allow",
          [options](const std::vector<std::string>& words) {
            for (const std::string& word : words) allow(*options, word);
          },
          "What else may be set on a resumed socket: SO_MARK, SO_PRIORITY above 6; may be repeated")
      ->type_name("mark|priority")
      ->allow_extra_args(false);
  verb->add_option("--most-buffer", options->most_buffer,
                   "The largest socket buffer that may be asked for, bytes")
      ->check(number(4096, 1U << 30))
      ->capture_default_str()
      ->type_name("BYTES");
  verb->footer(kAbout + footer(kExample, kOfAllNoJson));
  verb->callback([&globals, &action, options] {
    action = [&globals, options] { return help_to_repair(globals, *options); };
  });
}

}  // namespace tcpmig::cli
