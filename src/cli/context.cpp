// SPDX-License-Identifier: MIT
#include "cli/context.hpp"

#include <linux/capability.h>
#include <spdlog/spdlog.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <array>
#include <cstdlib>
#include <iostream>
#include <nlohmann/json.hpp>
#include <utility>
#include <vector>

#include "cli/failure.hpp"
#include "cli/options.hpp"
#include "sys/bpf.hpp"
#include "sys/capability.hpp"
#include "sys/log.hpp"

namespace tcpmig::cli {
namespace {

std::string host_name() {
  std::array<char, 256> name{};
  if (::gethostname(name.data(), name.size() - 1) < 0) return {};
  return name.data();
}

bool is_known(const config::Config& config, const std::string& name) {
  return config.find_switch(name) != nullptr || config.find_node(name) != nullptr;
}

std::string known_names(const config::Config& config) {
  std::string text;
  for (const config::Switch& item : config.switches) text += (text.empty() ? "" : ", ") + item.name;
  for (const config::Node& item : config.nodes) text += (text.empty() ? "" : ", ") + item.name;
  return text;
}

const char* role_text(config::Role role) {
  return role == config::Role::kDispatcher ? "dispatcher" : "server";
}

}  // namespace

config::Config load_config(const Globals& globals) {
  auto config = config::load(globals.config);
  if (config) return std::move(*config);
  const std::size_t more = config.error().size() - 1;
  throw Failure(kUsage,
                config.error().front().str() +
                    (more == 0 ? ""
                               : " (and " + std::to_string(more) + " more: `tcpmig config check " +
                                     globals.config.string() + "`)"));
}

std::string this_name(const config::Config& config, const Globals& globals) {
  std::string wanted = globals.node.empty() ? host_name() : globals.node;
  if (is_known(config, wanted)) return wanted;
  const std::string label = wanted.substr(0, wanted.find('.'));
  if (globals.node.empty() && is_known(config, label)) return label;
  throw Failure(kNotFound, config.file.string() + " has no switch or node \"" + wanted + "\"" +
                               (globals.node.empty() ? " (this host's name)" : "") +
                               ": say with --node or TCPMIG_NODE which of these this is: " +
                               known_names(config));
}

const config::Switch& this_switch(const config::Config& config, const Globals& globals) {
  const std::string name = this_name(config, globals);
  if (const config::Switch* found = config.find_switch(name)) return *found;
  throw Failure(kUsage, "\"" + name + "\" is a " + role_text(config.find_node(name)->role) +
                            ", not a switch: run this on a switch, or name one with --node");
}

const config::Node& this_node(const config::Config& config, const Globals& globals,
                              config::Role role) {
  const std::string name = this_name(config, globals);
  const config::Node* found = config.find_node(name);
  if (found != nullptr && found->role == role) return *found;
  throw Failure(kUsage, "\"" + name + "\" is a " +
                            (found == nullptr ? "switch" : role_text(found->role)) + ", not a " +
                            role_text(role) + ": run this on a " + role_text(role) +
                            ", or name one with --node");
}

void require_root(const std::string& what, Rights rights) {
  std::string missing;
  if (!sys::has_capability(CAP_NET_ADMIN)) missing += " CAP_NET_ADMIN";
  const bool admin = sys::has_capability(CAP_SYS_ADMIN);
  if (rights == Rights::kNamespaces && !admin) missing += " CAP_SYS_ADMIN";
  if (!sys::has_capability(CAP_BPF) && !admin) missing += " CAP_BPF";
  if (missing.empty()) return;
  throw Failure(kMissing, what + " takes root: run it with sudo (missing:" + missing + ")");
}

void refuse_json(const Globals& globals, const std::string& command) {
  if (globals.json) throw Failure(kUsage, "`" + command + "` has no --json");
}

void quiet_log(const Globals& globals) {
  sys::route_libbpf_log();
  sys::setup_log("tcpmig", globals.verbose);
  if (!globals.verbose && std::getenv("TCPMIG_LOG") == nullptr)
    spdlog::set_level(spdlog::level::warn);
}

void role_log(const Globals& globals, const std::string& role) {
  sys::route_libbpf_log();
  sys::setup_log(role, globals.verbose);
}

void print_json(const nlohmann::json& json) { std::cout << json.dump(2) << std::endl; }

CLI::Option* add_datapath(CLI::App& verb, config::Datapath& datapath, const std::string& help) {
  static const std::vector<std::pair<std::string, config::Datapath>> kWords{
      {"auto", config::Datapath::kAuto},
      {"tc", config::Datapath::kTc},
      {"xdp", config::Datapath::kXdp}};
  return verb
      .add_option_function<std::string>(
          "--datapath",
          [&datapath](const std::string& word) { datapath = chosen("--datapath", word, kWords); },
          help)
      ->type_name("auto|tc|xdp");
}

}  // namespace tcpmig::cli
