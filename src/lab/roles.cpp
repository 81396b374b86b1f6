// SPDX-License-Identifier: MIT
#include "lab/roles.hpp"

#include <fcntl.h>

#include <nlohmann/json.hpp>

#include "control/status_socket.hpp"
#include "lab/interrupt.hpp"
#include "sys/check.hpp"
#include "sys/netns.hpp"
#include "sys/role_lock.hpp"

namespace tcpmig::lab {
namespace {

constexpr std::chrono::seconds kReadyWithin{20};

/// Which of tcpmig's roles a node runs; empty: none.
std::string role_program(const std::string& node_role) {
  if (node_role == "switch" || node_role == "dispatcher") return node_role;
  return node_role == "server" ? "agent" : "";
}

bool is_ready(const State& state, const RoleProcess& role) {
  const auto status =
      control::query_status(sys::RolePaths{state.name, role.node}.socket(role.role));
  return status && status->value("ready", false);
}

std::string what_went_wrong(const State& state, const RoleProcess& role, const std::string& how) {
  const auto log = Paths(state.name).log(role.node);
  const std::string lines = tail(log, 12);
  return role.role + " of " + role.node + " " + how +
         (lines.empty() ? " (its log is empty)" : "; the end of its log:\n" + lines);
}

}  // namespace

void start_roles(State& state) {
  const Paths paths(state.name);
  const sys::UniqueFd nothing(
      sys::check("open /dev/null", ::open("/dev/null", O_RDWR | O_CLOEXEC)));
  for (const Node& node : state.nodes) {
    const std::string role = role_program(node.role);
    if (role.empty()) continue;
    const std::string log_file = paths.log(node.name);
    const sys::UniqueFd log(
        sys::check("open " + log_file,
                   ::open(log_file.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644)));
    const sys::UniqueFd netns = sys::open_netns(node.netns);
    const pid_t pid =
        start({.argv = {state.program, role, "run"},
               .environment = {{"TCPMIG_CONFIG", paths.config}, {"TCPMIG_NODE", node.name}},
               .netns_fd = netns.get(),
               .input = nothing.get(),
               .output = log.get(),
               .error = log.get(),
               .own_session = true});
    const auto process = identify(pid);
    state.processes.push_back({node.name, role, process.value_or(ProcessId{pid, 0, ""})});
    write_state(state);
  }
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
