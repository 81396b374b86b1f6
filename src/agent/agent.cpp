// SPDX-License-Identifier: MIT
#include "agent/agent.hpp"

#include <spdlog/spdlog.h>

#include <filesystem>
#include <nlohmann/json.hpp>
#include <optional>

#include "agent/loop.hpp"
#include "agent/service.hpp"
#include "sys/role_lock.hpp"

namespace tcpmig::agent {
namespace {

LoopWork work_of(Service& service, const std::filesystem::path& status_socket) {
  LoopWork work{.watches = {{service.events_fd(), [&] { service.on_events(); }},
                            {service.tun_fd(), [&] { service.on_tun(); }},
                            {service.handovers_fd(), [&] { service.on_handovers(); }},
                            {service.departures_fd(), [&] { service.on_departures(); }}},
                .due = [&] { return service.due(); },
                .run = [&](TimePoint now) { service.run(now); },
                .status = [&] { return service.status(); },
                .status_socket = status_socket};
  for (const int fd : service.control_fds())
    work.watches.push_back({fd, [&service, fd] { service.on_control(fd); }});
  return work;
}

bool was_up(const config::Config& config, const config::Node& self) {
  return std::filesystem::exists(config.paths(self.name).pins("agent"));
}

/// Under the role's lock.
void give_back(const config::Config& config, const config::Node& self) {
  const auto paths = config.paths(self.name);
  sys::Netlink netlink;
  if (was_up(config, self)) {
    const sys::PinDirectory pins(paths.pins("agent"));
    if (const auto link = netlink.find_link(self.interface)) Programs::detach(link->index, pins);
    pins.remove_all();
  }
  std::filesystem::remove(paths.handover_socket());
  std::filesystem::remove_all(paths.departures());
  sys::Ledger(paths.ledger("agent"), netlink).undo();
}

}  // namespace

int run(const config::Config& config, const config::Node& self) {
  const sys::RoleLock lock(config.paths(self.name), "agent");
  const bool adopted = was_up(config, self);
  std::optional<Service> service;
  try {
    service.emplace(config, self);
  } catch (...) {
    if (!adopted) give_back(config, self);  // what a first start has half made
    throw;
  }
  spdlog::info("agent of node {} is ready{}", self.name,
               adopted ? ", its connections adopted" : "");
  run_loop(work_of(*service, config.paths(self.name).socket("agent")));
  spdlog::info("agent of node {} ends; its programs and tombstones stay", self.name);
  return 0;
}

void down(const config::Config& config, const config::Node& self) {
  const sys::RolePaths paths = config.paths(self.name);
  const sys::RoleLock lock(paths, "agent");
  give_back(config, self);
  sys::remove_traces(paths, "agent");
}

}  // namespace tcpmig::agent
