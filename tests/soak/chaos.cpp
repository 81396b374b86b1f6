// SPDX-License-Identifier: MIT
#include "soak/chaos.hpp"

#include <signal.h>

#include <nlohmann/json.hpp>

#include "control/status_socket.hpp"
#include "lab/interrupt.hpp"
#include "lab/plan.hpp"
#include "lab/process.hpp"
#include "lab/role_status.hpp"
#include "lab/roles.hpp"
#include "sys/role_lock.hpp"

namespace tcpmig::soak {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

constexpr seconds kEndWithin{30};  ///< a dispatcher finishes its transfers first
constexpr seconds kReadyWithin{60};

}  // namespace

Chaos::Chaos(const lab::Lab& lab, std::string program, std::uint64_t seed)
    : lab_(lab), program_(std::move(program)), random_(seed) {
  for (const lab::Node& node : lab.nodes())
    if (!lab::role_of(node).empty()) nodes_.push_back(node.name);
}

std::uint64_t Chaos::draw(std::uint64_t low, std::uint64_t high) {
  return low + random_() % (high - low + 1);
}

milliseconds Chaos::next_pause() { return milliseconds(draw(1500, 4500)); }

void Chaos::strike(const std::function<void(const std::string&)>& before) {
  std::vector<std::string> victims{nodes_[draw(0, nodes_.size() - 1)]};
  const std::string second = nodes_[draw(0, nodes_.size() - 1)];
  if (draw(0, 6) == 0 && second != victims[0]) victims.push_back(second);
  std::vector<std::size_t> mine;
  for (const std::string& node : victims) {
    Outage outage{.node = node,
                  .role = lab::role_of(lab_.node(node)),
                  .killed = draw(0, 3) != 0,
                  .from = Clock::now(),
                  .to = Clock::time_point::max()};
    before(node);
    outage.from = Clock::now();
    {
      const std::lock_guard lock(mutex_);
      mine.push_back(outages_.size());
      outages_.push_back(outage);
    }
    end(outage);
  }
  const milliseconds pause(draw(20, 1200));
  lab::wait_until(pause, [] { return lab::interrupted(); });
  for (const std::size_t index : mine) {
    Outage outage = outages()[index];
    start(outage);
    const std::lock_guard lock(mutex_);
    outages_[index] = outage;
  }
}

void Chaos::end(Outage& outage) {
  const auto pid = lab::role_status(lab_, outage.node).at("pid").get<pid_t>();
  const auto process = lab::identify(pid);
  if (!process) throw std::runtime_error("no process of " + outage.node);
  ::kill(pid, outage.killed ? SIGKILL : SIGTERM);
  const bool ended = lab::wait_until(kEndWithin, [&] {
    lab::poll_exit(pid);  // all roles are children of this process
    return !lab::is_alive(*process);
  });
  if (!ended)
    throw std::runtime_error("the " + outage.role + " of " + outage.node + " does not end");
}

void Chaos::start(Outage& outage) {
  lab_.spawn(outage.node, {program_, outage.role, "run"}, lab::Paths(lab_.name()).log(outage.node));
  const auto socket = sys::RolePaths{lab_.name(), outage.node}.socket(outage.role);
  const bool ready = lab::wait_until(kReadyWithin, [&] {
    const auto status = control::query_status(socket);
    return status && status->value("ready", false);
  });
  if (!ready)
    throw std::runtime_error("the " + outage.role + " of " + outage.node +
                             " does not come back:\n" +
                             lab::tail(lab::Paths(lab_.name()).log(outage.node), 15));
  outage.to = Clock::now();
}

std::vector<Outage> Chaos::outages() const {
  const std::lock_guard lock(mutex_);
  return outages_;
}

std::optional<Outage> Chaos::outage(const std::string& node, Clock::time_point from,
                                    Clock::time_point to) const {
  for (const Outage& one : outages())
    if (one.node == node && one.from <= to && one.to >= from) return one;
  return {};
}

}  // namespace tcpmig::soak
