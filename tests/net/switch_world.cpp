// SPDX-License-Identifier: MIT
#include "switch_world.hpp"

#include <arpa/inet.h>
#include <bpf/bpf.h>
#include <poll.h>

#include <algorithm>
#include <cstdio>
#include <iostream>
#include <memory>
#include <sstream>
#include <stdexcept>

#include "control/keys.hpp"
#include "switch/sweep.hpp"
#include "switch/switch.hpp"
#include "sys/bpf.hpp"
#include "sys/check.hpp"
#include "sys/ledger.hpp"

namespace switch_test {

using namespace tcpmig;

namespace {

sys::Prefix prefix(const std::string& text) { return sys::Prefix::parse(text).value(); }

void add_veth(sys::Netlink& netlink, int number, const std::string& peer_netns) {
  const std::string name = "eth" + std::to_string(number), network = std::to_string(number + 1);
  const sys::UniqueFd there = sys::open_netns(peer_netns);
  netlink.create_veth(name, "peer" + std::to_string(number), there.get());
  netlink.set_link(name, true);
  const int index = netlink.find_link(name).value().index;
  netlink.add_address(index, prefix("10.0." + network + ".1/24"));
  netlink.add_address(index, prefix("fd00:" + network + "::1/64"));
  const sys::EnterNetns inside(peer_netns);
  sys::Netlink().set_link("peer" + std::to_string(number), true);
}

std::vector<std::string> lines(const std::string& text) {
  std::vector<std::string> all;
  std::istringstream stream(text);
  for (std::string line;
       std::getline(stream, line);)  // link-local ones come when the kernel has made sure of them
    if (line.find("fe80::") == std::string::npos) all.push_back(line);
  std::sort(all.begin(), all.end());
  return all;
}

}  // namespace

bool cannot_run_here() {
  if (::geteuid() == 0) return false;
  std::cout << "SKIPPED: network namespaces and BPF take root" << std::endl;
  return true;
}

bool eventually(const std::function<bool()>& condition, std::chrono::milliseconds limit) {
  const auto deadline = std::chrono::steady_clock::now() + limit;
  while (!condition()) {
    if (std::chrono::steady_clock::now() > deadline) return false;
    ::poll(nullptr, 0, 20);
  }
  return true;
}

std::string File::text(const std::filesystem::path& secret) const {
  const auto node = [](const std::string& name, int id, const std::string& role,
                       const std::string& host) {
    const std::string net = role == "server" ? "3" : "2";
    return "[[node]]\nname = \"" + name + "\"\nid = " + std::to_string(id) + "\nrole = \"" + role +
           "\"\naddress4 = \"10.0." + net + "." + host + "\"\naddress6 = \"fd00:" + net +
           "::" + host + "\"\ninterface = \"eth0\"\n";
  };
  const auto service = [](const std::string& name, int id, const std::string& vip, int port) {
    return "[[service]]\nname = \"" + name + "\"\nid = " + std::to_string(id) +
           "\nvip4 = \"203.0.113." + vip + "\"\nvip6 = \"2001:db8:113::" + vip +
           "\"\nport = " + std::to_string(port) + "\nroute = [{ pool = \"all\" }]\n";
  };
  return extra + "\n[cluster]\nname = \"" + cluster + "\"\nsecret_file = \"" + secret.string() +
         "\"\n[[switch]]\nname = \"sw\"\nclients = [" + clients + "]\nnodes = [" + nodes +
         "]\ndatapath = \"" + datapath + "\"\n" + node("d1", 1, "dispatcher", "2") +
         (second_dispatcher ? node("d2", 2, "dispatcher", "3") : "") +
         node("s1", 101, "server", "2") + (second_server ? node("s2", 102, "server", "3") : "") +
         service("web", 7, "10", 80) + (second_service ? service("api", 8, "11", 8080) : "") +
         "[[pool]]\nname = \"all\"\nservers = [{ node = \"s1\" }]\n";
}

World::World()
    : name_("tmt-sw-" + std::to_string(::getpid())),
      peer_(name_ + "-peer"),
      directory_(std::filesystem::temp_directory_path() / name_) {
  file.cluster = name_;
  sys::route_libbpf_log();
  std::filesystem::create_directories(directory_);
  control::Secret::generate(directory_ / "secret");
  sys::create_netns(name_);
  sys::create_netns(peer_);
  inside_.emplace(name_);
  sys::Netlink netlink;
  for (int number = 0; number < 3; ++number) add_veth(netlink, number, peer_);
  netlink.create_bridge("br0");
}

World::~World() {
  try {
    file = File{.cluster = name_, .datapath = "auto", .extra = ""};
    const config::Config all = config();
    steering::down(all, all.switches.at(0));
  } catch (const std::exception& error) {
    std::cerr << "while cleaning up: " << error.what() << std::endl;
  }
  inside_.reset();
  sys::remove_netns(name_);
  sys::remove_netns(peer_);
  std::error_code ignored;
  std::filesystem::remove_all("/sys/fs/bpf/tcpmig/" + name_, ignored);
  std::filesystem::remove_all("/run/tcpmig/" + name_, ignored);
  std::filesystem::remove_all(directory_, ignored);
}

config::Config World::config() const {
  auto parsed = config::parse(file.text(directory_ / "secret"), "test.toml");
  if (!parsed) throw std::logic_error(parsed.error().at(0).str());
  return *parsed;
}

std::filesystem::path World::pins() const { return "/sys/fs/bpf/tcpmig/" + name_ + "/sw/switch"; }

std::vector<std::string> World::pin_names() const {
  std::vector<std::string> names;
  std::error_code none;
  for (const auto& entry : std::filesystem::directory_iterator(pins(), none))
    names.push_back(entry.path().filename());
  std::sort(names.begin(), names.end());
  return names;
}

sys::UniqueFd World::map(const std::string& name) const {
  return sys::UniqueFd(sys::check_errno("open map " + name, bpf_obj_get((pins() / name).c_str())));
}

int World::ifindex(const std::string& interface) const {
  return sys::Netlink().find_link(interface).value().index;
}

void up(const World& world) {
  const config::Config config = world.config();
  steering::up(config, config.switches.at(0));
}

void down(const World& world) {
  const config::Config config = world.config();
  steering::down(config, config.switches.at(0));
}

std::string refusal(const World& world,
                    const std::function<void(const config::Config&, const config::Switch&)>& act) {
  const config::Config config = world.config();
  try {
    act(config, config.switches.at(0));
  } catch (const std::exception& error) {
    return error.what();
  }
  return "no refusal";
}

std::string output_of(const std::string& command) {
  const std::unique_ptr<FILE, int (*)(FILE*)> pipe(::popen((command + " 2>&1").c_str(), "r"),
                                                   ::pclose);
  std::string text;
  for (char block[4096]; const std::size_t got = std::fread(block, 1, sizeof block, pipe.get());)
    text.append(block, got);
  return text;
}

State state_of(const World& world) {
  State state;
  for (const std::string family : {"ipv4", "ipv6"})
    for (const std::string interface : {"all", "default", "lo", "eth0", "eth1", "eth2", "br0"})
      for (const std::string key : {"forwarding", "rp_filter", "accept_ra", "accept_redirects"}) {
        const std::string name = "net/" + family + "/conf/" + interface + "/" + key;
        if (std::filesystem::exists("/proc/sys/" + name))
          state.sysctls[name] = sys::read_sysctl(name);
      }
  state.sysctls["net/ipv4/ip_forward"] = sys::read_sysctl("net/ipv4/ip_forward");
  state.routes = lines(output_of("ip -4 route show table all; ip -6 route show table all"));
  for (const std::string interface : {"eth0", "eth1", "eth2", "br0"})
    state.programs.push_back(interface + ": " + output_of("bpftool net show dev " + interface));
  (void)world;
  return state;
}

abi::flow_key insert_flow(const World& world, std::uint16_t client_port,
                          std::optional<std::chrono::nanoseconds> dead_for) {
  const bool dead = dead_for.has_value();
  abi::flow_key key{};
  key.client = sys::Address::parse("10.0.1.2").value().raw();
  key.vip = sys::Address::parse("203.0.113.10").value().raw();
  key.client_port = htons(client_port);
  key.vip_port = htons(80);
  key.family = abi::FAMILY_IPV4;
  abi::flow_value value{};
  value.owner.is.owner = dead ? 0 : 101;
  value.owner.is.port = 80;
  value.owner.is.generation = 5;
  value.owner.is.spoke = !dead;
  value.service = 7;
  const std::chrono::nanoseconds ago = dead_for.value_or(std::chrono::nanoseconds(0));
  value.last_seen_ns = value.committed_ns =
      steering::monotonic_ns() - static_cast<std::uint64_t>(ago.count());
  sys::map_update(world.map("flows").get(), key, value);
  return key;
}

bool has_flow(const World& world, const abi::flow_key& key) {
  return sys::map_lookup<abi::flow_value>(world.map("flows").get(), key).has_value();
}

}  // namespace switch_test
