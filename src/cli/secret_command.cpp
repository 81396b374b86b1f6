// SPDX-License-Identifier: MIT
// tcpmig secret generate FILE
#include <CLI/CLI.hpp>
#include <iostream>
#include <memory>
#include <nlohmann/json.hpp>

#include "cli/context.hpp"
#include "control/keys.hpp"

namespace tcpmig::cli {

void add_secret(CLI::App& app, Globals& globals, Action& action) {
  CLI::App* noun = app.add_subcommand("secret", "The cluster's secret, from which all keys derive");
  noun->require_subcommand(1);
  CLI::App* verb = noun->add_subcommand(
      "generate", "Write a new random secret, mode 0600; never overwrites a file");
  const auto file = std::make_shared<std::filesystem::path>();
  verb->add_option("FILE", *file, "Where to write it, as [cluster] secret_file says")->required();
  verb->footer("\nExample: sudo tcpmig secret generate /etc/tcpmig/secret");
  verb->callback([&globals, &action, file] {
    action = [&globals, file] {
      control::Secret::generate(*file);
      if (globals.json)
        print_json({{"file", file->string()}});
      else
        std::cout << file->string()
                  << " is written: copy it to every switch and node, readable by root only"
                  << std::endl;
      return 0;
    };
  });
}

}  // namespace tcpmig::cli
