// SPDX-License-Identifier: MIT
#pragma once
#include <filesystem>
#include <functional>
#include <string>

#include <nlohmann/json_fwd.hpp>

#include "config/config.hpp"

namespace CLI {
class App;
class Option;
}  // namespace CLI

namespace tcpmig::cli {

/// The options that every sub-command has.
struct Globals {
  std::filesystem::path config = "/etc/tcpmig/tcpmig.toml";
  std::string node;  ///< empty = by the host name
  bool verbose = false;
  bool json = false;
};

/// What a sub-command puts itself in as; run once everything is parsed. Returns the exit code.
using Action = std::function<int()>;

/// The configuration, checked. Throws Failure (usage) with its first problem.
config::Config load_config(const Globals& globals);
/// The name of this machine in the configuration: --node, else the host name, else its first label.
/// Throws Failure (not found).
std::string this_name(const config::Config& config, const Globals& globals);
const config::Switch& this_switch(const config::Config& config, const Globals& globals);
const config::Node& this_node(const config::Config& config, const Globals& globals,
                              config::Role role);

/// Throws Failure (missing) without the rights that `what` takes. Namespaces are entered with
/// CAP_SYS_ADMIN alone.
enum class Rights { kNetwork, kNamespaces };
void require_root(const std::string& what, Rights rights = Rights::kNetwork);
/// For commands that have nothing to say as JSON.
void refuse_json(const Globals& globals, const std::string& command);
/// Logs to stderr, warnings and worse only, unless --verbose (or TCPMIG_LOG) asks for more; `role`
/// for a long-running one: everything worth knowing.
void quiet_log(const Globals& globals);
void role_log(const Globals& globals, const std::string& role);
void print_json(const nlohmann::json& json);

/// --datapath auto|tc|xdp
CLI::Option* add_datapath(CLI::App& verb, config::Datapath& datapath, const std::string& help);

// One function for each noun; each adds its verbs and sets `action` when one of them is named.
void add_switch(CLI::App& app, Globals& globals, Action& action);
void add_dispatcher(CLI::App& app, Globals& globals, Action& action);
void add_agent(CLI::App& app, Globals& globals, Action& action);
/// `command`: what stood after "--", for `lab exec`.
void add_lab(CLI::App& app, Globals& globals, Action& action,
             const std::vector<std::string>& command);
/// `command`: what stood after "--".
void add_exec(CLI::App& app, Globals& globals, Action& action,
              const std::vector<std::string>& command);
void add_status(CLI::App& app, Globals& globals, Action& action);
void add_flows(CLI::App& app, Globals& globals, Action& action);
void add_config(CLI::App& app, Globals& globals, Action& action);
void add_secret(CLI::App& app, Globals& globals, Action& action);
void add_version(CLI::App& app, Globals& globals, Action& action);
void add_doctor(CLI::App& app, Globals& globals, Action& action);
void add_freeze(CLI::App& app, Globals& globals, Action& action);
/// `command`: what stood after "--".
void add_resume(CLI::App& app, Globals& globals, Action& action,
                const std::vector<std::string>& command);
void add_repair_helper(CLI::App& app, Globals& globals, Action& action);
void add_snapshot(CLI::App& app, Globals& globals, Action& action);

}  // namespace tcpmig::cli
