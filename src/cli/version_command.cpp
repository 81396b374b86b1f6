// SPDX-License-Identifier: MIT
// tcpmig version
#include <bpf/libbpf.h>
#include <sys/utsname.h>

#include <CLI/CLI.hpp>
#include <iostream>
#include <nlohmann/json.hpp>

#include "cli/context.hpp"
#include "cli/options.hpp"
#include "cli/version.hpp"

namespace tcpmig::cli {

void add_version(CLI::App& app, Globals& globals, Action& action) {
  CLI::App* noun = app.add_subcommand("version", "Versions of tcpmig, libbpf and this kernel");
  noun->footer(footer("tcpmig version --json", kOfAll));
  noun->callback([&] {
    action = [&] {
      utsname kernel{};
      ::uname(&kernel);
      const std::string libbpf = libbpf_version_string() + 1;  // "v1.1"
      if (globals.json)
        print_json({{"tcpmig", kVersion}, {"libbpf", libbpf}, {"kernel", kernel.release}});
      else
        std::cout << "tcpmig " << kVersion << " (libbpf " << libbpf << ", Linux " << kernel.release
                  << ")" << std::endl;
      return 0;
    };
  });
}

}  // namespace tcpmig::cli
