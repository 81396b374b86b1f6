// SPDX-License-Identifier: MIT
#include "lab/lab.hpp"

#include <fcntl.h>
#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <fstream>
#include <iostream>
#include <nlohmann/json.hpp>

#include "control/keys.hpp"
#include "control/status_socket.hpp"
#include "lab/generate.hpp"
#include "lab/impair_process.hpp"
#include "lab/interrupt.hpp"
#include "lab/plan.hpp"
#include "lab/process.hpp"
#include "lab/roles.hpp"
#include "lab/state.hpp"
#include "lab/teardown.hpp"
#include "lab/topology.hpp"
#include "sys/check.hpp"
#include "sys/errors.hpp"
#include "sys/netns.hpp"
#include "sys/role_lock.hpp"

namespace tcpmig::lab {
namespace {

namespace fs = std::filesystem;

void write_config(const Plan& plan, const std::string& text) {
  const Paths paths(plan.name);
  control::Secret::generate(paths.secret);
  std::ofstream output(paths.config);
  if (!(output << text << std::flush))
    throw std::runtime_error("cannot write " + paths.config.string());
}

State make(const Plan& plan, const Options& options, const std::string& config_text) {
  State state{plan.name, false, {}, plan.nodes, {}, plan.impairment};
  state.program =
      options.program.empty() ? fs::read_symlink("/proc/self/exe") : fs::canonical(options.program);
  write_state(state);
  write_config(plan, config_text);
  build_topology(plan);
  throw_if_interrupted();
  start_roles(state);
  wait_until_ready(state);
  state.ready = true;
  write_state(state);
  return state;
}

/// tcpmig's own processes in a node, also those somebody has started again by hand.
std::vector<pid_t> pids_of(const State& state, const Node& node) {
  std::vector<pid_t> result;
  for (const ProcessId& process : processes_in(node.netns))
    if (process.program == state.program || process.program == state.program + " (deleted)")
      result.push_back(process.pid);
  return result;
}

/// Does the role of this node answer on its socket? Nodes without a role do not.
bool answers(const std::string& lab, const Node& node) {
  const std::string role = role_of(node);
  return !role.empty() &&
         control::query_status(sys::RolePaths{lab, node.name}.socket(role)).has_value();
}

/// A lab is alive while one of its roles is, whoever has started that, and from which program.
void refuse_if_alive(const std::string& name) {
  const auto state = read_state(name);
  if (!state || !state->ready) return;
  const bool alive = std::ranges::any_of(state->nodes, [&](const Node& node) {
    return answers(name, node) || !pids_of(*state, node).empty();
  });
  if (alive)
    throw sys::AlreadyRunning("the lab \"" + name +
                              "\" is up already: remove it with `tcpmig lab down --name " + name +
                              "` first");
}

/// Roles that do not answer on their sockets: killed, or not started again.
nlohmann::json missing_roles(const std::string& lab, const std::vector<Node>& nodes) {
  nlohmann::json missing = nlohmann::json::array();
  for (const Node& node : nodes)
    if (!role_of(node).empty() && !answers(lab, node))
      missing.push_back({{"node", node.name}, {"role", role_of(node)}});
  return missing;
}

/// What the links of a lab suffer, and how much of that there has been.
nlohmann::json impairment_status(const std::string& lab, const std::string& spec) {
  if (spec.empty()) return nullptr;
  const auto process = control::query_status(sys::RolePaths{lab, "fabric"}.socket(kImpairRole));
  return {{"spec", spec},
          {"links", process ? process->value("links", nlohmann::json::array()) : nullptr}};
}

config::Config load_config(const std::string& name) {
  auto config = config::load(Paths(name).config);
  if (!config) throw std::runtime_error(config.error().at(0).str());
  return *config;
}

sys::UniqueFd open_null() {
  return sys::UniqueFd(sys::check("open /dev/null", ::open("/dev/null", O_RDWR | O_CLOEXEC)));
}

/// While a command has the terminal, Ctrl-C is for it.
class IgnoreKeyboard {
 public:
  IgnoreKeyboard() : interrupt_(::signal(SIGINT, SIG_IGN)), quit_(::signal(SIGQUIT, SIG_IGN)) {}
  ~IgnoreKeyboard() {
    ::signal(SIGINT, interrupt_);
    ::signal(SIGQUIT, quit_);
  }
  IgnoreKeyboard(const IgnoreKeyboard&) = delete;
  IgnoreKeyboard& operator=(const IgnoreKeyboard&) = delete;

 private:
  sighandler_t interrupt_, quit_;
};

}  // namespace

Lab Lab::up(const Options& options) {
  const Plan plan = make_plan(options);
  if (::geteuid() != 0)
    throw std::runtime_error("a lab needs root (namespaces, BPF): run it with sudo");
  const CatchInterrupts catcher;
  const NameLock lock(plan.name);
  refuse_if_alive(plan.name);
  const LabConfig made = make_config(plan, options);
  tear_down(plan.name);
  Lab lab;
  lab.config_ = made.config;
  try {
    make(plan, options, made.text);
  } catch (const std::exception&) {
    tear_down(plan.name);
    throw;
  }
  lab.name_ = plan.name;
  lab.nodes_ = find(plan.name).nodes_;
  lab.impairment_ = plan.impairment;
  return lab;
}

Lab Lab::find(const std::string& name) {
  check_name(name);
  const auto state = read_state(name);
  if (!state || !state->ready)
    throw sys::NotFound("there is no lab \"" + name + "\": `tcpmig lab up --name " + name +
                        "` makes one");
  Lab lab;
  lab.name_ = name;
  lab.config_ = load_config(name);
  lab.nodes_ = state->nodes;
  lab.impairment_ = state->impairment;
  for (Node& node : lab.nodes_) node.pids = pids_of(*state, node);
  return lab;
}

bool Lab::down(const std::string& name) {
  check_name(name);
  const NameLock lock(name);
  return tear_down(name);
}

const Node& Lab::node(const std::string& name) const {
  std::string known;
  for (const Node& node : nodes_) {
    if (node.name == name) return node;
    known += (known.empty() ? "" : ", ") + node.name;
  }
  throw sys::NotFound("the lab \"" + name_ + "\" has no node \"" + name + "\"; it has " + known);
}

nlohmann::json Lab::status() const {
  using nlohmann::json;
  json result = {{"name", name_}, {"vips", json::array()}, {"nodes", json::array()}};
  for (const config::Service& service : config_.services)
    for (const sys::Address& vip : {service.vip4, service.vip6})
      if (vip.is_set() && std::find(result["vips"].begin(), result["vips"].end(), vip.str()) ==
                              result["vips"].end())
        result["vips"].push_back(vip.str());
  for (const Node& node : nodes_) {
    if (node.role == "fabric") continue;
    json addresses = json::array();
    for (const sys::Address& address : node.addresses) addresses.push_back(address.str());
    result["nodes"].push_back({{"name", node.name},
                               {"role", node.role},
                               {"netns", node.netns},
                               {"addresses", addresses},
                               {"pids", node.pids}});
  }
  result["not_running"] = missing_roles(name_, nodes_);
  result["impairment"] = impairment_status(name_, impairment_);
  if (!impairment_.empty() && result["impairment"]["links"].is_null())
    result["not_running"].push_back({{"node", "fabric"}, {"role", kImpairRole}});
  return result;
}

int Lab::exec(const std::string& node_name, const std::vector<std::string>& command) const {
  const sys::UniqueFd netns = sys::open_netns(node(node_name).netns);
  const IgnoreKeyboard keyboard;
  try {
    return wait_for(
        start({.argv = command,
               .environment = {{"TCPMIG_CONFIG", Paths(name_).config}, {"TCPMIG_NODE", node_name}},
               .netns_fd = netns.get(),
               .death_signal = SIGTERM}));
  } catch (const std::system_error& error) {  // as a shell does
    std::cerr << "tcpmig lab exec: " << error.what() << '\n';
    return error.code().value() == ENOENT ? 127 : 126;
  }
}

pid_t Lab::spawn(const std::string& node_name, const std::vector<std::string>& command,
                 const fs::path& output) const {
  const sys::UniqueFd netns = sys::open_netns(node(node_name).netns);
  const sys::UniqueFd nothing = open_null();
  sys::UniqueFd log;
  if (!output.empty())
    log.reset(sys::check("open " + output.string(),
                         ::open(output.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644)));
  const int target = log ? log.get() : nothing.get();
  return start({.argv = command,
                .environment = {{"TCPMIG_CONFIG", Paths(name_).config}, {"TCPMIG_NODE", node_name}},
                .netns_fd = netns.get(),
                .input = nothing.get(),
                .output = target,
                .error = target,
                .own_session = true});
}

}  // namespace tcpmig::lab
