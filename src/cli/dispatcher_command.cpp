// SPDX-License-Identifier: MIT
// tcpmig dispatcher run
#include <CLI/CLI.hpp>

#include "cli/context.hpp"
#include "dispatcher/dispatcher.hpp"

namespace tcpmig::cli {

void add_dispatcher(CLI::App& app, Globals& globals, Action& action) {
  CLI::App* noun = app.add_subcommand("dispatcher",
                                      "Accept connections, read the request, hand them to servers");
  noun->require_subcommand(1);
  noun->add_subcommand("run", "Run the dispatcher of this node until SIGTERM or SIGINT")
      ->footer("\nExample: sudo tcpmig dispatcher run --node dispatcher1")
      ->callback([&] {
        action = [&] {
          refuse_json(globals, "dispatcher run");
          const config::Config config = load_config(globals);
          const config::Node& self = this_node(config, globals, config::Role::kDispatcher);
          require_root("dispatcher run");
          role_log(globals, "dispatcher " + self.name);
          return dispatcher::run(config, self);
        };
      });
}

}  // namespace tcpmig::cli
