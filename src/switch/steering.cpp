// SPDX-License-Identifier: MIT
#include "switch/steering.hpp"

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

/// While flows are carried from a table of one size into one of another, the old table is kept
/// under this name too: a crash or a refusal loses none.
const char* const kOldFlows = "flows_old";

/// Whether a pinned table has entries as this program knows them.
bool is_flow_table(int map_fd) {
  const bpf_map_info info = sys::map_info(map_fd);
  return info.key_size == sizeof(abi::flow_key) && info.value_size == sizeof(abi::flow_value);
}

/// The table to carry flows from: where a former attempt has left one, or where the pinned one
/// cannot be adopted because of its size.
std::optional<sys::UniqueFd> flows_to_carry(const sys::PinDirectory& pins,
                                            const config::Limits& limits) {
  if (auto left = pins.open(kOldFlows)) return left;
  auto flows = pins.open("flows");
  if (!flows) return {};
  const bpf_map_info info = sys::map_info(flows->get());
  if (info.max_entries == limits.flows || !is_flow_table(flows->get())) return {};
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

/// The programs come before the routes and the forwarding, and go after them: without a program the
/// kernel would forward what a node says from its virtual private address as it is, and the client
/// would answer RST.
void Steering::bring_up() {
  const Host host(netlink_, self_);
  host.require_interfaces();
  secret_ = control::Secret::load(config_.secret_file);
  ledger_.begin_adoption();
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
  host.set_sysctls(ledger_);
  set_routes(host);
  if (is_fresh_) begin_recovery();
  ledger_.finish_adoption();
}

void Steering::use(config::Datapath datapath) {
  const Host host(netlink_, self_);
  const auto old_flows = flows_to_carry(pins_, config_.limits);
  const bool adopted = load_and_fill(host, datapath, old_flows ? old_flows->get() : -1);
  try {
    attach_all(host);
  } catch (...) {
    if (old_flows) keep_old_flows(pins_, old_flows->get());
    throw;
  }
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

/// Only now can the nodes' heartbeats get through.
void Steering::begin_recovery() {
  const std::uint32_t zero = 0;
  auto settings = sys::map_lookup<abi::switch_settings>(map("settings"), zero).value();
  settings.recovering_until_ns = monotonic_ns() + nanoseconds(config_.timeouts.recovery);
  sys::map_update(map("settings"), zero, settings);
}

/// Returns true when the pinned flow table was adopted.
bool Steering::load_and_fill(const Host& host, config::Datapath datapath, int old_flows) try {
  const auto pinned = pins_.open("flows");
  if (old_flows < 0 && !(pinned && is_flow_table(pinned->get()))) forget_boot();
  const std::uint32_t pinned_id = pinned ? sys::map_info(pinned->get()).id : 0;
  programs_.emplace(datapath, config_.limits, pins_);
  const bool adopted = pinned_id == sys::map_info(programs_->map("flows")).id;
  if (old_flows >= 0) copy_flows(old_flows, programs_->map("flows"));
  is_fresh_ = !adopted && old_flows < 0;
  fill_tables(host, is_fresh_);
  programs_->pin_maps(pins_);
  return adopted;
} catch (...) {
  if (old_flows >= 0) keep_old_flows(pins_, old_flows);
  throw;
}

/// A new flow table is a new boot. Who was bound to which dispatcher goes with the old one: most of these connections have been
/// transferred since, and would be answered with RST. The settings go too: programs that still steer by the old table keep theirs.
void Steering::forget_boot() const {
  pins_.unpin("affinity");
  pins_.unpin("settings");
}

Wanted Steering::wanted_now(const Host& host) {
  const auto ifindex_of = [&](const config::Node& node) {
    const Reach reach = host.reach(node);
    note("node " + node.name, reach.trouble);
    return static_cast<std::uint32_t>(reach.ifindex());
  };
  Wanted all = wanted(config_, secret_, ifindex_of, host.own_addresses());
  if (choice_) apply_choice(all, *choice_);
  return all;
}

void Steering::use_dispatchers(const DispatcherChoice& choice) {
  choice_ = choice;
  fill_choice([&](const std::string& name) { return programs_->map(name); },
              wanted_now(Host(netlink_, self_)));
}

void Steering::fill_tables(const Host& host, bool fresh) {
  const auto map = [&](const std::string& name) { return programs_->map(name); };
  fill_settings(map, config_, secret_, fresh);
  fill(map, wanted_now(host));
}

int Steering::program_for(const std::string& interface) const {
  return programs_->program(side_of(self_, interface));
}

/// All or nothing: when one interface refuses, what this call has attached is detached again, and
/// what it has updated gets its former program back.
void Steering::attach_all(const Host& host) {
  const config::Datapath datapath = programs_->datapath();
  std::vector<std::string> fresh, updated;
  try {
    for (const std::string& interface : interfaces(self_)) {
      const bool was_there = attachments_.is_there(datapath, interface);
      attachments_.attach(datapath, interface, host.ifindex(interface), program_for(interface));
      (was_there ? updated : fresh).push_back(interface);
    }
  } catch (...) {
    for (const std::string& interface : fresh)
      attachments_.detach(datapath, interface, host.ifindex(interface));
    for (const std::string& interface : updated)  // the programs are pinned when all hang
      if (const auto former = pins_.open(program_pin(datapath, side_of(self_, interface))))
        attachments_.attach(datapath, interface, host.ifindex(interface), former->get());
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
  const std::vector<sys::Route> routes = host.wanted_routes(config_);
  ledger_.expect_routes(routes);
  for (const sys::Route& route : routes) try {
      routes_[route.destination.str()] = route;
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
void Steering::repair_route(const sys::Route& route) {
  const auto [old, is_new] = routes_.try_emplace(route.destination.str(), route);
  if (!is_new && old->second != route) {
    ledger_.remove_route(old->second);
    old->second = route;
  }
  ledger_.add_route(route);
}

/// Attaches again what somebody has removed. Returns what there is to say; "" = all is well.
std::string Steering::tend_interface(const Host& host, const std::string& interface) {
  const int ifindex = host.ifindex(interface), program = program_for(interface);
  if (ifindex == 0) return "the interface has gone";
  if (attachments_.is_attached(programs_->datapath(), interface, ifindex, program)) return "";
  attachments_.attach(programs_->datapath(), interface, ifindex, program);
  return "the program was detached: attached again";
}

/// Each by itself: what is wrong with one must not leave the others untended.
void Steering::tend() {
  const Host host(netlink_, self_);
  const auto map = [&](const std::string& name) { return programs_->map(name); };
  for (const std::string& interface : interfaces(self_))
    attempt(interface, [&] { return tend_interface(host, interface); });
  attempt("tables", [&] {
    fill_nodes(map, wanted_now(host));
    return std::string();
  });
  for (const sys::Route& route : host.wanted_routes(config_))
    attempt("route to " + route.destination.str(), [&] {
      repair_route(route);
      return std::string();
    });
}

/// Notes what `work` has to say about `whom`, or what went wrong with it.
void Steering::attempt(const std::string& whom, const std::function<std::string()>& work) {
  std::string trouble;
  try {
    trouble = work();
  } catch (const std::exception& problem) {
    trouble = problem.what();
  }
  note(whom, trouble);
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
  ledger_.undo();
  programs_.reset();
  detach_others(Host(netlink_, self_));
  pins_.remove_all();
  sys::remove_empty_pins(pins_.path());
}

bool is_up(const config::Config& config, const config::Switch& self) {
  std::error_code ignored;
  const std::filesystem::path pins = config.paths(self.name).pins(kRole);
  return std::filesystem::exists(pins / "flows", ignored) ||
         std::filesystem::exists(pins / kOldFlows, ignored);
}

}  // namespace tcpmig::steering
