// SPDX-License-Identifier: MIT
#include "lab/roles.hpp"

#include <fcntl.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "control/status_socket.hpp"
#include "lab/impair_process.hpp"
#include "lab/interrupt.hpp"
#include "sys/check.hpp"
#include "sys/netns.hpp"
#include "sys/role_lock.hpp"

namespace tcpmig::lab {
namespace {

/// A machine that is itself emulated takes half a minute to verify the switch's programs.
constexpr std::chrono::seconds kReadyWithin{120};

bool is_ready(const State& state, const RoleProcess& role) {
  const auto status =
      control::query_status(sys::RolePaths{state.name, role.node}.socket(role.role));
  if (!status || !status->value("ready", false)) return false;
  if (role.role != "switch") return true;
  // A dispatcher says at first that it does not listen yet; the switch sends it clients a moment after it does.
  return std::ranges::all_of(status->at("nodes"), [](const nlohmann::json& node) {
    return node.at("role") != "dispatcher" ||
           (node.at("health") == "alive" && node.at("new_clients") == true);
  });
}

std::string what_went_wrong(const State& state, const RoleProcess& role, const std::string& how) {
  const auto log = Paths(state.name).log(role.node);
  const std::string lines = tail(log, 12);
  return role.role + " of " + role.node + " " + how +
         (lines.empty() ? " (its log is empty)" : "; the end of its log:\n" + lines);
}

pid_t start_role(const State& state, const Node& node, const std::string& role) {
  const Paths paths(state.name);
  const sys::UniqueFd nothing(
      sys::check("open /dev/null", ::open("/dev/null", O_RDWR | O_CLOEXEC)));
  const std::string log_file = paths.log(node.name);
  const sys::UniqueFd log(
      sys::check("open " + log_file,
                 ::open(log_file.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644)));
  const sys::UniqueFd netns = sys::open_netns(node.netns);
  std::vector<std::string> argv{state.program, role, "run"};
  if (role == kImpairRole) argv = {state.program, "lab", role, "--name", state.name};
  return start({.argv = argv,
                .environment = {{"TCPMIG_CONFIG", paths.config}, {"TCPMIG_NODE", node.name}},
                .netns_fd = netns.get(),
                .input = nothing.get(),
                .output = log.get(),
                .error = log.get(),
                .own_session = true});
}

}  // namespace

std::string role_of(const Node& node) {
  if (node.role == "switch" || node.role == "dispatcher") return node.role;
  return node.role == "server" ? "agent" : "";
}

void start_roles(State& state) {
  const auto start_one = [&](const Node& node, const std::string& role) {
    const pid_t pid = start_role(state, node, role);
    const auto process = identify(pid);
    state.processes.push_back({node.name, role, process.value_or(ProcessId{pid, 0, ""})});
    write_state(state);
  };
  for (const Node& node : state.nodes)  // first, since without it the others have no network
    if (node.role == "fabric" && !state.impairment.empty()) start_one(node, kImpairRole);
  for (const Node& node : state.nodes)
    if (const std::string role = role_of(node); !role.empty()) start_one(node, role);
}

void wait_until_ready(const State& state) {
  std::vector<RoleProcess> waiting = state.processes;
  const bool all = wait_until(kReadyWithin, [&] {
    throw_if_interrupted();
    std::erase_if(waiting, [&](const RoleProcess& role) { return is_ready(state, role); });
    for (const RoleProcess& role : waiting)
      if (!is_alive(role.process))
        throw std::runtime_error(what_went_wrong(state, role, "ended before it was ready"));
    return waiting.empty();
  });
  if (!all)
    throw std::runtime_error(
        what_went_wrong(state, waiting.front(),
                        "was not ready within " + std::to_string(kReadyWithin.count()) + " s"));
}

}  // namespace tcpmig::lab
