// SPDX-License-Identifier: MIT
#include "e2e/support.hpp"

#include <fcntl.h>
#include <signal.h>
#include <unistd.h>

#include <cstdlib>
#include <fstream>
#include <iostream>
#include <sstream>
#include <stdexcept>

#include "agent/agent.hpp"
#include "control/status_socket.hpp"
#include "lab/generate.hpp"
#include "lab/plan.hpp"
#include "lab/roles.hpp"
#include "lab/teardown.hpp"
#include "sys/check.hpp"
#include "sys/netns.hpp"
#include "sys/role_lock.hpp"

namespace tcpmig::e2e {
namespace {

namespace fs = std::filesystem;

Output run_command(lab::Command command, std::chrono::seconds limit) {
  const lab::TemporaryDirectory directory("tcpmig-run");
  const auto open_file = [&](const char* name) {
    const fs::path file = directory.path() / name;
    return sys::UniqueFd(
        sys::check("open", ::open(file.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600)));
  };
  const sys::UniqueFd out = open_file("out");
  const sys::UniqueFd error = open_file("error");
  const sys::UniqueFd nothing(sys::check("open", ::open("/dev/null", O_RDWR | O_CLOEXEC)));
  command.input = nothing.get();
  command.output = out.get();
  command.error = error.get();
  command.own_session = true;
  const pid_t child = lab::start(command);
  Output output;
  const auto finished = [&] {
    const auto code = lab::poll_exit(child);
    if (code) output.code = *code;
    return code.has_value();
  };
  if (!lab::wait_until(limit, finished, 5ms)) {
    ::kill(-child, SIGKILL);
    lab::wait_for(child);
    output.code = 124;
  }
  output.out = read_file(directory.path() / "out");
  output.error = read_file(directory.path() / "error");
  return output;
}

}  // namespace

fs::path program() {
  const char* path = std::getenv("TCPMIG_BIN");
  if (path == nullptr)
    throw std::runtime_error("set TCPMIG_BIN to the tcpmig program to be tested");
  return fs::canonical(path);
}

std::string fresh_name() {
  static unsigned count = 0;
  return "e2e-" + std::to_string(::getpid()) + "-" + std::to_string(++count);
}

RemovedLab::~RemovedLab() {
  try {
    lab::Lab::down(name);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "lab down: %s\n", error.what());
  }
}

bool tests_repair() {
  const char* way = std::getenv("TCPMIG_TEST_RESUME");
  return way != nullptr && std::string(way) == "repair";
}

bool skipped_in_repair(const std::string& why) {
  if (tests_repair()) std::cout << "SKIPPED: " << why << '\n';
  return tests_repair();
}

TestLab::TestLab(lab::Options options, const std::string& config)
    : name_(fresh_name()), documents_(directory_.path() / "www") {
  fs::create_directories(documents_);
  options.name = name_;
  options.program = program();
  if (tests_repair()) options.resume = config::Resume::kRepair;
  if (!config.empty()) {
    options.config_file = directory_.path() / "test.toml";
    lab::write_text(options.config_file, config);
  }
  lab_ = lab::Lab::up(options);
  for (const lab::Node& node :
       lab_->nodes())  // "/server1/1k" is "/1k": a path that names a server, see pool_per_server()
    if (node.role == "server") fs::create_directory_symlink(".", documents_ / node.name);
}

TestLab::~TestLab() {
  servers_.clear();
  try {
    lab::Lab::down(name_);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "lab down: %s\n", error.what());
  }
}

lab::Payload TestLab::add_file(const std::string& name, std::size_t size) {
  return lab::make_payload(documents_, name, size);
}

lab::StockServer& TestLab::start_server(lab::ServerKind kind, const std::string& node,
                                        std::uint16_t port) {
  const fs::path work = directory_.path() / (node + "-" + std::to_string(port));
  std::vector<std::string> under;
  const config::Node* self = lab_->config().find_node(node);
  if (self != nullptr && self->resume == config::Resume::kRepair)
    under = {program().string(), "exec", "--"};
  servers_.push_back(
      std::make_unique<lab::StockServer>(*lab_, lab::StockServer::Options{.kind = kind,
                                                                          .node = node,
                                                                          .documents = documents_,
                                                                          .work = work,
                                                                          .port = port,
                                                                          .under = under}));
  return *servers_.back();
}

void TestLab::stop_server(const std::string& node) {
  std::erase_if(servers_, [&](const auto& server) { return server->node() == node; });
}

const lab::StockServer& TestLab::server(const std::string& node) const {
  for (const auto& server : servers_)
    if (server->node() == node) return *server;
  throw std::runtime_error("no server runs on " + node);
}

pid_t TestLab::role_pid(const std::string& node) const {
  return lab::role_status(*lab_, node).at("pid").get<pid_t>();
}

void TestLab::restart_role(const std::string& node) {
  const std::string role = lab::role_of(lab_->node(node));
  lab_->spawn(node, {program().string(), role, "run"}, lab::Paths(name_).log(node));
  const bool ready = lab::wait_until(20s, [&] {
    const auto status = control::query_status(sys::RolePaths{name_, node}.socket(role));
    return status && status->value("ready", false);
  });
  if (!ready)
    throw std::runtime_error(role + " of " + node + " does not come back:\n" +
                             lab::tail(lab::Paths(name_).log(node), 10));
}

std::string TestLab::logs() const {
  std::string text;
  for (const lab::Node& node : lab_->nodes())
    if (const auto lines = lab::tail(lab::Paths(name_).log(node.name), 15); !lines.empty())
      text += node.name + ":\n" + lines;
  return text;
}

Output run(const std::vector<std::string>& command, std::chrono::seconds limit) {
  return run_command({.argv = command}, limit);
}

Output run_in(const lab::Lab& lab, const std::string& node, const std::vector<std::string>& command,
              std::chrono::seconds limit) {
  const sys::UniqueFd netns = sys::open_netns(lab.node(node).netns);
  return run_command(
      {.argv = command,
       .environment = {{"TCPMIG_CONFIG", lab::Paths(lab.name()).config}, {"TCPMIG_NODE", node}},
       .netns_fd = netns.get()},
      limit);
}

Output cli(std::vector<std::string> arguments, std::chrono::seconds limit) {
  arguments.insert(arguments.begin(), program().string());
  return run(arguments, limit);
}

std::string url(const std::string& path, bool ipv6) {
  return "http://" + (ipv6 ? "[" + std::string(lab::kVip6) + "]" : std::string(lab::kVip4)) + path;
}

sys::Endpoint vip(bool ipv6, std::uint16_t port) {
  return {sys::Address::parse(ipv6 ? lab::kVip6 : lab::kVip4).value(), port};
}

std::string pool_per_server(unsigned servers, const std::string& extra) {
  std::string text = lab::web_service();
  std::string all;
  for (unsigned i = 1; i <= servers; ++i) {
    const std::string name = "server" + std::to_string(i);
    text += "\n[[service.route]]\nprefix = \"/" + name + "\"\npool = \"" + name + "\"\n";
    all += (i > 1 ? ", " : "") + ("{ node = \"" + name + "\", port = 80 }");
  }
  text += "\n[[service.route]]\nprefix = \"/all\"\npool = \"all\"\n";
  for (unsigned i = 1; i <= servers; ++i) {
    const std::string name = "server" + std::to_string(i);
    text +=
        "\n[[pool]]\nname = \"" + name + "\"\nservers = [{ node = \"" + name + "\", port = 80 }]\n";
  }
  return text + "\n[[pool]]\nname = \"all\"\nservers = [" + all + "]\n" + extra;
}

std::string read_file(const fs::path& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

std::uint64_t netstat(const TestLab& lab, const std::string& node, const std::string& name) {
  const sys::EnterNetns inside(lab.netns(node));
  std::ifstream file("/proc/thread-self/net/netstat");
  std::string names, values;
  std::getline(file, names);
  std::getline(file, values);
  std::istringstream of_names(names), of_values(values);
  std::string key, value;
  while (of_names >> key && of_values >> value)
    if (key == name) return std::stoull(value);
  throw std::runtime_error("no " + name + " in netstat");
}

void set_in(const TestLab& lab, const std::string& node, const std::string& setting,
            const std::string& value) {
  const sys::EnterNetns inside(lab.netns(node));
  std::ofstream file("/proc/sys/net/ipv4/" + setting);
  if (!(file << value << std::flush)) throw std::runtime_error("cannot set " + setting);
}

bool skipped(const TestLab& lab) {
  const config::Node* server = lab->config().find_node("server1");
  if (server == nullptr) throw std::runtime_error("the lab has no server1");
  if (server->resume == config::Resume::kRepair) return false;  // needs none
  const sys::EnterNetns inside(lab.netns("server1"));
  for (const agent::Finding& finding : agent::check(lab->config(), *server)) {
    if (finding.name != "kfunc" || finding.ok) continue;
    std::cout << "SKIPPED: " << finding.detail << '\n';
    return true;
  }
  return false;
}

}  // namespace tcpmig::e2e
