// SPDX-License-Identifier: MIT
// tcpmig resume FILE -- PROGRAM ARGS..
#include <CLI/CLI.hpp>
#include <memory>

#include "cli/context.hpp"
#include "cli/failure.hpp"
#include "cli/options.hpp"
#include "manual/go_on.hpp"

namespace tcpmig::cli {
namespace {

const std::string kAbout = R"(
PROGRAM takes the place of this command, with the connection as its standard input and output, like a program that inetd
starts; what it reads first is what the former application had not read. Everything is as it was, but that reading waits
(O_NONBLOCK is off). REMOTE_ADDR and REMOTE_PORT name the peer; with --fd 3 there are LISTEN_FDS and LISTEN_PID, too
(sd_listen_fds).

Nothing is sent before PROGRAM is known to be executable. If it cannot be executed after all, or anything else fails, the
connection is closed here without a packet, and FILE can be resumed again. Once PROGRAM runs FILE is of the past: resumed
again it would contradict the living connection.

The connection goes on in the network namespace of this command, or in that of --netns. Its address must be local there (a local
route is enough), and packets of the peer must come there.
)";

int resume(const Globals& globals, manual::GoOn& wanted, const std::vector<std::string>& command) {
  refuse_json(globals, "resume");
  if (command.empty())
    throw Failure(kUsage,
                  "say which program goes on: tcpmig resume FILE -- PROGRAM ARGS.. (see `tcpmig "
                  "resume --help`)");
  require_root("resume", Rights::kNamespaces);
  quiet_log(globals);
  wanted.command = command;
  manual::go_on(wanted);
}

}  // namespace

void add_resume(CLI::App& app, Globals& globals, Action& action,
                const std::vector<std::string>& command) {
  CLI::App* verb = app.add_subcommand("resume", "Go on with a frozen connection, in a program");
  const auto wanted = std::make_shared<manual::GoOn>();
  verb->add_option("FILE", wanted->file, "What `tcpmig freeze` has written")->required();
  verb->add_option_function<std::string>(
          "--local",
          [wanted](const std::string& text) {
            wanted->local = manual::parse_local(text);
            if (!wanted->local)
              throw CLI::ValidationError(
                  "--local", "\"" + text + "\" is not ADDR, ADDR:PORT or [V6ADDR]:PORT");
          },
          "Another address for this end (something on the way translates; same family); without a "
          "port: that of the file")
      ->type_name("ADDR[:PORT]");
  verb->add_option("--fd", wanted->fd,
                   "PROGRAM finds the connection at this descriptor instead of 0 and 1")
      ->check(number(0, 1'000'000))
      ->type_name("N");
  verb->add_option("--netns", wanted->netns, "A network namespace of `ip netns`")
      ->type_name("NAME");
  verb->footer(kAbout + footer("sudo tcpmig resume c.snap -- cat", kOfAllNoJson));
  verb->callback([&globals, &action, wanted, &command] {
    action = [&globals, wanted, &command] { return resume(globals, *wanted, command); };
  });
}

}  // namespace tcpmig::cli
