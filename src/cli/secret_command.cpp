// SPDX-License-Identifier: MIT
// tcpmig secret generate|rotate
#include <CLI/CLI.hpp>
#include <iostream>
#include <memory>
#include <nlohmann/json.hpp>

#include "cli/context.hpp"
#include "cli/options.hpp"
#include "control/keys.hpp"

namespace tcpmig::cli {
namespace {

struct Step {
  const char* name;
  std::uint8_t (*take)(const std::filesystem::path&);
  const char* done;  ///< what has become of the key
  const char* next;  ///< the step that follows; empty: none
};
constexpr Step kSteps[] = {
    {"add", control::Secret::add_key, "is valid beside the current one, and not used yet", "use"},
    {"use", control::Secret::use_second, "is the current one; the former is valid still", "drop"},
    {"drop", control::Secret::drop_second, "is valid no more", ""},
};

std::vector<std::pair<std::string, const Step*>> steps() {
  std::vector<std::pair<std::string, const Step*>> words;
  for (const Step& step : kSteps) words.emplace_back(step.name, &step);
  return words;
}

int generate(const Globals& globals, const std::filesystem::path& file) {
  control::Secret::generate(file);
  if (globals.json)
    print_json({{"file", file.string()}});
  else
    std::cout << file.string()
              << " is written: copy it to every switch and node, readable by root only"
              << std::endl;
  return 0;
}

int rotate(const Globals& globals, const std::filesystem::path& file, const Step& step) {
  const unsigned id = step.take(file);
  const std::string next = step.next;
  if (globals.json) {
    print_json({{"file", file.string()},
                {"step", step.name},
                {"key", id},
                {"next", next.empty() ? nlohmann::json() : nlohmann::json(next)}});
    return 0;
  }
  std::cout << "key " << id << " " << step.done << "\nNow copy " << file.string()
            << " to every switch and node and start every role again, one after another.\n";
  if (!next.empty())
    std::cout << "When all have it: tcpmig secret rotate " << file.string() << " " << next << "\n";
  std::cout << std::flush;
  return 0;
}

void add_rotate(CLI::App* noun, Globals& globals, Action& action) {
  CLI::App* verb = noun->add_subcommand(
      "rotate", "Change the key while everything runs, in three steps: add, use, drop");
  const auto file = std::make_shared<std::filesystem::path>();
  const auto step = std::make_shared<const Step*>(nullptr);
  verb->add_option("FILE", *file, "The secret file")->required();
  verb->add_option_function<std::string>(
          "STEP", [step](const std::string& word) { *step = chosen("STEP", word, steps()); },
          "add: a second key, accepted but not used; use: it becomes the current one; drop: the "
          "former one is valid no more. Between two steps all machines get the file and every role "
          "is started again")
      ->required()
      ->type_name("add|use|drop");
  verb->footer(footer("sudo tcpmig secret rotate /etc/tcpmig/secret add", kOfAll));
  verb->callback([&globals, &action, file, step] {
    action = [&globals, file, step] { return rotate(globals, *file, **step); };
  });
}

}  // namespace

void add_secret(CLI::App& app, Globals& globals, Action& action) {
  CLI::App* noun = app.add_subcommand("secret", "The cluster's secret, from which all keys derive");
  noun->require_subcommand(1);
  noun->footer(group_footer("secret", kOfAll));
  CLI::App* verb = noun->add_subcommand(
      "generate", "Write a new random secret, mode 0600; never overwrites a file");
  const auto file = std::make_shared<std::filesystem::path>();
  verb->add_option("FILE", *file, "Where to write it, as [cluster] secret_file says")->required();
  verb->footer(footer("sudo tcpmig secret generate /etc/tcpmig/secret", kOfAll));
  verb->callback([&globals, &action, file] {
    action = [&globals, file] { return generate(globals, *file); };
  });
  add_rotate(noun, globals, action);
}

}  // namespace tcpmig::cli
