// SPDX-License-Identifier: MIT
#include "stage.hpp"

#include <fstream>
#include <iostream>
#include <stdexcept>

#include "lab/interrupt.hpp"
#include "lab/process.hpp"
#include "proxies.hpp"
#include "sys/netns.hpp"

namespace tcpmig::bench {
namespace {

namespace fs = std::filesystem;
using std::chrono::milliseconds;

enum : std::size_t { kNginx, kMiniHttpd, kHaproxy, kNginxProxy };

/// nginx's, mini_httpd's, and one for a server of a benchmark's own; each at the port that it has on the server.
std::string services() {
  std::string text;
  unsigned id = 0;
  for (const std::uint16_t port : {kWebPort, kMiniPort, kOwnPort}) {
    const std::string name = "port" + std::to_string(port);
    text += "[[service]]\nname = \"" + name + "\"\nid = " + std::to_string(++id) +
            "\nvip4 = \"203.0.113.10\"\nport = " + std::to_string(port) +
            "\nprotocol = \"http\"\n[[service.route]]\nprefix = \"/\"\npool = \"" + name +
            "\"\n[[pool]]\nname = \"" + name +
            "\"\nservers = [{ node = \"server1\", port = " + std::to_string(port) + " }]\n";
  }
  return text;
}

fs::path program(const std::string& name) {
  for (const fs::path directory : {"/usr/sbin", "/usr/bin"})
    if (fs::exists(directory / name)) return directory / name;
  throw std::runtime_error(name + " is not installed: `./dev bench` installs it");
}

/// Of this thread's network namespace.
void set_sysctl(const std::string& path, const std::string& value) {
  std::ofstream output("/proc/sys/" + path);
  if (!(output << value << std::flush))
    throw std::runtime_error("cannot set " + path + " to " + value);
}

}  // namespace

BenchLab::BenchLab(const lab::Options& options) : lab_(lab::Lab::up(options)) {}

BenchLab::~BenchLab() {
  try {
    lab::Lab::down(lab_.name());
  } catch (const std::exception& error) {
    std::cerr << "bench: " << error.what() << '\n';
  }
}

void prepare_ports(const lab::Lab& lab) {
  for (const lab::Node& node : lab.nodes()) {
    if (node.role != "client" && node.role != "dispatcher" && node.role != "server") continue;
    const sys::EnterNetns inside(node.netns);
    set_sysctl("net/ipv4/ip_local_port_range", "10000 65535");
    set_sysctl("net/ipv4/tcp_tw_reuse", "1");  // of a proxy that closes first
    set_sysctl("net/core/somaxconn", "8192");
    set_sysctl("net/ipv4/tcp_max_syn_backlog", "8192");
  }
}

Stage::Stage(const Plan& plan, const Options& options)
    : lab_({.name = options.name,
            .servers = 1,
            .datapath = options.datapath,
            .config_text = services(),
            .program = plan.program}),
      ports_(*lab_, "client1"),
      documents_(directory_.path() / "documents") {
  fs::create_directories(documents_);
  prepare_ports(*lab_);
  start_origins();
  start_proxies();
  wait_for(sides());
  wait_for(mini_httpd_sides());
}

void Stage::start_origins() {
  const fs::path nginx = directory_.path() / "nginx", mini = directory_.path() / "mini_httpd";
  fs::create_directories(nginx);
  fs::create_directories(mini);
  lab::write_text(nginx / "nginx.conf", nginx_origin(documents_));
  programs_.emplace_back(*lab_, "server1",
                         std::vector<std::string>{program("nginx"), "-p", nginx, "-e",
                                                  nginx / "error.log", "-c", nginx / "nginx.conf"},
                         nginx / "output.log");
  programs_.emplace_back(
      *lab_, "server1",
      std::vector<std::string>{program("mini_httpd"), "-D", "-u", "root", "-p",
                               std::to_string(kMiniPort), "-d", documents_, "-l", "/dev/null"},
      mini / "output.log");
}

void Stage::start_proxies() {
  const fs::path haproxy = directory_.path() / "haproxy", nginx = directory_.path() / "nginx-proxy";
  fs::create_directories(haproxy);
  fs::create_directories(nginx);
  const std::string own = lab_->node("dispatcher1").addresses.at(0).str();
  const std::string server = lab_->node("server1").addresses.at(0).str();
  lab::write_text(haproxy / "haproxy.cfg", haproxy_config(own, server));
  lab::write_text(nginx / "nginx.conf", nginx_proxy(own, server));
  programs_.emplace_back(
      *lab_, "dispatcher1",
      std::vector<std::string>{program("haproxy"), "-db", "-f", haproxy / "haproxy.cfg"},
      haproxy / "output.log");
  programs_.emplace_back(*lab_, "dispatcher1",
                         std::vector<std::string>{program("nginx"), "-p", nginx, "-e",
                                                  nginx / "error.log", "-c", nginx / "nginx.conf"},
                         nginx / "output.log");
}

void Stage::wait_for(const std::vector<Side>& sides) const {
  for (const Side& side : sides) {
    const bool ready = lab::wait_until(milliseconds(10'000), [&] {
      lab::throw_if_interrupted();
      return lab::can_connect(lab_->node("client1").netns, side.at, milliseconds(500));
    });
    if (ready) continue;
    std::string words;
    for (const char* name : {"nginx", "mini_httpd", "haproxy", "nginx-proxy"})
      for (const char* log : {"output.log", "error.log"})
        words += lab::tail(directory_.path() / name / log, 5);
    throw std::runtime_error(side.name + " does not accept connections:\n" + words);
  }
}

sys::Endpoint Stage::proxy_at(std::uint16_t port) const {
  return {lab_->node("dispatcher1").addresses.at(0), port};
}

std::vector<pid_t> Stage::pids_of(const std::string& node) const { return lab_->node(node).pids; }

sys::Endpoint Stage::own_service() const { return {lab_->config().services.at(0).vip4, kOwnPort}; }

std::vector<pid_t> Stage::server() const {
  std::vector<pid_t> result = with_children(programs_[kNginx].pid());
  result.push_back(programs_[kMiniHttpd].pid());
  return result;
}

std::vector<pid_t> Stage::middles() const {
  std::vector<pid_t> result = pids_of("dispatcher1");
  for (const std::size_t proxy : {kHaproxy, kNginxProxy})
    for (const pid_t pid : with_children(programs_[proxy].pid())) result.push_back(pid);
  return result;
}

Placed::Placed(const Stage& stage, const Placement& placement) : stage_(stage) { put(placement); }

Placed::~Placed() {
  const std::vector<unsigned> all = all_processors();
  put({"", "", all, all, all});
}

void Placed::put(const Placement& placement) const {
  pin_this_thread(placement.clients);
  pin(stage_.middles(), placement.middle);
  pin(stage_.switch_process(), placement.middle);
  pin(stage_.server(), placement.servers);
  pin(stage_.agent(), placement.servers);
}

std::vector<Side> Stage::sides() const {
  const auto haproxy = with_children(programs_[kHaproxy].pid());
  const auto nginx = with_children(programs_[kNginxProxy].pid());
  return {{"direct", {lab_->node("server1").addresses.at(0), kWebPort}, {}},
          {"tcpmig", {lab_->config().services.at(0).vip4, kWebPort}, pids_of("dispatcher1")},
          {"haproxy", proxy_at(kHaproxyClose), haproxy},
          {"haproxy-keep", proxy_at(kHaproxyKeep), haproxy},
          {"nginx", proxy_at(kNginxClose), nginx},
          {"nginx-keep", proxy_at(kNginxKeep), nginx}};
}

std::vector<Side> Stage::mini_httpd_sides() const {
  return {{"direct", {lab_->node("server1").addresses.at(0), kMiniPort}, {}},
          {"tcpmig", {lab_->config().services.at(0).vip4, kMiniPort}, pids_of("dispatcher1")},
          {"haproxy", proxy_at(kHaproxyMini), with_children(programs_[kHaproxy].pid())},
          {"nginx", proxy_at(kNginxMini), with_children(programs_[kNginxProxy].pid())}};
}

}  // namespace tcpmig::bench
