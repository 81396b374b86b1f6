// SPDX-License-Identifier: MIT
#include "switch/steering.hpp"

#include <bpf/bpf.h>
#include <linux/bpf.h>
#include <spdlog/spdlog.h>

#include <algorithm>
#include <filesystem>
#include <system_error>

#include "switch/datapath.hpp"
#include "switch/sweep.hpp"
#include "sys/check.hpp"

namespace tcpmig::steering {
namespace {

const char* const kRole = "switch";

/// What two descriptors of one map have in common.
bpf_map_info map_info(int map_fd) {
  bpf_map_info info{};
  std::uint32_t length = sizeof info;
  sys::check_errno("ask for BPF map info", bpf_obj_get_info_by_fd(map_fd, &info, &length));
  return info;
}

/// While flows are carried from a table of one size into one of another, the old table is kept
/// under this name too: a crash or a refusal loses none.
const char* const kOldFlows = "flows_old";

/// The table to carry flows from: where a former attempt has left one, or where the pinned one
/// cannot be adopted because of its size.
std::optional<sys::UniqueFd> flows_to_carry(const sys::PinDirectory& pins,
                                            const config::Limits& limits) {
  if (auto left = pins.open(kOldFlows)) return left;
  auto flows = pins.open("flows");
  if (!flows) return {};
  const bpf_map_info info = map_info(flows->get());
  if (info.max_entries == limits.flows || info.key_size != sizeof(abi::flow_key) ||
      info.value_size != sizeof(abi::flow_value))
    return {};
  pins.pin(flows->get(), kOldFlows);
  return flows;
}

/// Nothing steers by the new table yet: the old one is the table again.
void keep_old_flows(const sys::PinDirectory& pins, int old_flows) {
  pins.pin(old_flows, "flows");
  pins.unpin(kOldFlows);
}

const char* side_of(const config::Switch& self, const std::string& interface) {
  const auto found = std::find(self.clients.begin(), self.clients.end(), interface);
  return found != self.clients.end() ? "clients" : "nodes";
}

}  // namespace

Steering::Steering(const config::Config& config, const config::Switch& self)
    : config_(config),
      self_(self),
      paths_(config.paths(self.name)),
      pins_(paths_.pins(kRole)),
      ledger_(paths_.ledger(kRole), netlink_),
      attachments_(pins_) {}

void Steering::up() {
  const bool was_up = is_up(config_, self_);
  try {
    bring_up();
  } catch (...) {
    if (!was_up) try {
        down();
      } catch (const std::exception& problem) {
        spdlog::error("while giving back what was done: {}", problem.what());
      }
    throw;
  }
}

void Steering::bring_up() {
  const Host host(netlink_, self_);
  host.require_interfaces();
  secret_ = control::Secret::load(config_.secret_file);
  ledger_.begin_adoption();
  host.set_sysctls(ledger_);
  set_routes(host);
  std::vector<std::string> drivers;
  for (const std::string& interface : interfaces(self_)) drivers.push_back(driver_of(interface));
  const config::Datapath first = preferred(self_, drivers);
  try {
    use(first);
  } catch (const std::system_error& error) {
    if (self_.datapath != config::Datapath::kAuto || first != config::Datapath::kXdp) throw;
    spdlog::info("XDP is not possible, so tc: {}", error.what());
    use(config::Datapath::kTc);
  }
  ledger_.finish_adoption();
}

void Steering::use(config::Datapath datapath) {
  const Host host(netlink_, self_);
  const auto old_flows = flows_to_carry(pins_, config_.limits);
  const bool adopted = load_and_fill(host, datapath, old_flows ? old_flows->get() : -1);
  attach_all(host);
  if (old_flows) {
    copy_flows(old_flows->get(), programs_->map("flows"));  // what came in between
    pins_.unpin(kOldFlows);
  }
  programs_->pin_programs(pins_);
  detach_others(host);
  spdlog::info("steering by {}, {}", to_string(datapath),
               old_flows ? "flows carried into a table of another size"
               : adopted ? "flows adopted"
                         : "new tables");
}

/// Returns true when the pinned flow table was adopted.
bool Steering::load_and_fill(const Host& host, config::Datapath datapath, int old_flows) try {
  const auto pinned = pins_.open("flows");
  const std::uint32_t pinned_id = pinned ? map_info(pinned->get()).id : 0;
  programs_.emplace(datapath, config_.limits, pins_);
  const bool adopted = pinned_id == map_info(programs_->map("flows")).id;
  if (old_flows >= 0) copy_flows(old_flows, programs_->map("flows"));
  fill_tables(host, !adopted && old_flows < 0);
  programs_->pin_maps(pins_);
  return adopted;
} catch (...) {
  if (old_flows >= 0) keep_old_flows(pins_, old_flows);
  throw;
}

Wanted Steering::wanted_now(const Host& host) {
  const auto ifindex_of = [&](const config::Node& node) {
    const Reach reach = host.reach(node);
    note("node " + node.name, reach.trouble);
    return static_cast<std::uint32_t>(reach.ifindex());
  };
  return wanted(config_, secret_, ifindex_of, host.own_addresses());
}

void Steering::fill_tables(const Host& host, bool fresh) {
  const auto map = [&](const std::string& name) { return programs_->map(name); };
  fill_settings(map, config_, fresh);
  fill(map, wanted_now(host));
}

int Steering::program_for(const std::string& interface) const {
  return programs_->program(side_of(self_, interface));
}

/// All or nothing: what this call has attached is detached again when one interface refuses.
void Steering::attach_all(const Host& host) {
  const config::Datapath datapath = programs_->datapath();
  std::vector<std::string> done;
  try {
    for (const std::string& interface : interfaces(self_)) {
      const int ifindex = host.ifindex(interface), program = program_for(interface);
      const bool was_there = attachments_.is_there(datapath, interface);
      attachments_.attach(datapath, interface, ifindex, program);
      if (!was_there) done.push_back(interface);
    }
  } catch (...) {
    for (const std::string& interface : done)
      attachments_.detach(datapath, interface, host.ifindex(interface));
    throw;
  }
}

/// The other datapath's, and those on interfaces that are not named any more.
void Steering::detach_others(const Host& host) {
  const std::vector<std::string> ours = interfaces(self_);
  for (const Attachments::Found& found : attachments_.found()) {
    const std::string interface =
        found.interface.empty() ? host.name(found.ifindex) : found.interface;
    const bool named = std::find(ours.begin(), ours.end(), interface) != ours.end();
    if (programs_ && named && found.datapath == programs_->datapath()) continue;
    const int ifindex = found.ifindex != 0 ? found.ifindex : host.ifindex(interface);
    attachments_.detach(found.datapath, interface, ifindex);
    if (programs_) spdlog::info("{} detached from {}", to_string(found.datapath), interface);
  }
}

void Steering::set_routes(const Host& host) {
  routes_ = host.wanted_routes(config_);
  for (const sys::Route& route : routes_) try {
      ledger_.add_route(route);
    } catch (const std::system_error& error) {
      if (error.code().value() != EEXIST) throw;
      throw std::system_error(EEXIST, std::generic_category(),
                              "another route to " + route.destination.str() +
                                  " is there, which is not ours: remove it");
    }
}

/// Routes go when their interface goes down or the way to a node changes. One that is not wanted
/// any more goes only when another takes its place: a node that cannot be reached just now keeps
/// its route.
void Steering::repair_routes(const Host& host) {
  for (const sys::Route& route : host.wanted_routes(config_)) {
    const auto old = std::find_if(routes_.begin(), routes_.end(), [&](const sys::Route& other) {
      return other.destination == route.destination;
    });
    if (old == routes_.end()) {
      routes_.push_back(route);
    } else if (*old != route) {
      ledger_.remove_route(*old);
      *old = route;
    }
    ledger_.add_route(route);
  }
}

void Steering::tend() {
  const Host host(netlink_, self_);
  const auto map = [&](const std::string& name) { return programs_->map(name); };
  for (const std::string& interface : interfaces(self_)) {
    const int ifindex = host.ifindex(interface), program = program_for(interface);
    if (ifindex != 0 &&
        attachments_.is_attached(programs_->datapath(), interface, ifindex, program)) {
      note(interface, "");
      continue;
    }
    note(interface,
         ifindex == 0 ? "the interface has gone" : "the program was detached: attached again");
    if (ifindex != 0) attachments_.attach(programs_->datapath(), interface, ifindex, program);
  }
  fill_nodes(map, wanted_now(host));
  repair_routes(host);
}

std::size_t Steering::sweep() {
  const auto now = std::chrono::steady_clock::now();
  if (now < next_sweep_) return 0;
  next_sweep_ =
      now + std::clamp<std::chrono::milliseconds>(
                config_.timeouts.closing / 4, std::chrono::seconds(1), std::chrono::seconds(30));
  return sweep_flows(*programs_, config_.timeouts);
}

void Steering::note(const std::string& whom, const std::string& trouble) {
  std::string& before = troubles_[whom];
  if (before == trouble) return;
  if (trouble.empty())
    spdlog::info("{}: well again", whom);
  else
    spdlog::warn("{}: {}", whom, trouble);
  before = trouble;
}

void Steering::down() {
  programs_.reset();
  detach_others(Host(netlink_, self_));
  pins_.remove_all();
  std::error_code ignored;  // directories that other roles or nodes still use stay
  std::filesystem::remove(pins_.path().parent_path(), ignored);
  std::filesystem::remove(pins_.path().parent_path().parent_path(), ignored);
  ledger_.undo();
}

bool is_up(const config::Config& config, const config::Switch& self) {
  std::error_code ignored;
  const std::filesystem::path pins = config.paths(self.name).pins(kRole);
  return std::filesystem::exists(pins / "flows", ignored) ||
         std::filesystem::exists(pins / kOldFlows, ignored);
}

}  // namespace tcpmig::steering
