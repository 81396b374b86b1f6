// SPDX-License-Identifier: MIT
#pragma once
#include <chrono>
#include <filesystem>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include <sys/types.h>

#include <nlohmann/json_fwd.hpp>

#include "config/config.hpp"
#include "lab/impairment.hpp"
#include "sys/address.hpp"
#include "sys/unique_fd.hpp"

/// The network-namespace lab as an object: used by `tcpmig lab` and by tests.
///
///   client1.. --- net1 10.0.1.0/24 --- switch1 --- net2 10.0.2.0/24 --- dispatcher1..
///                                         |
///                                         +------- net3 10.0.3.0/24 --- server1..
///
/// Each node is a network namespace; the three networks are bridges in one more namespace
/// ("fabric"). fd00:N::/64 likewise.
namespace tcpmig::lab {

struct Options {
  std::string name = "lab";
  unsigned servers = 2;
  unsigned dispatchers = 1;
  unsigned clients = 1;
  config::Datapath datapath = config::Datapath::kAuto;
  std::filesystem::path config_file{};     ///< replaces services, routes, pools and limits; nodes
                                           ///< always come from the numbers above
  std::string config_text{};               ///< the same without a file, for callers that make it up
  std::filesystem::path program{};         ///< the tcpmig program that runs the roles; empty = this
                                           ///< process's own (/proc/self/exe)
  std::optional<Impairment> impairment{};  ///< of the links between the switch and the nodes
  config::Resume resume = config::Resume::kAuto;  ///< of every server
};

struct Node {
  std::string name;
  std::string role;                     ///< client, switch, dispatcher, server, fabric
  std::string netns;                    ///< name below /run/netns
  std::vector<sys::Address> addresses;  ///< own addresses
  std::vector<pid_t> pids;              ///< tcpmig's own processes in that node
};

/// A lab that is up. State is kept in /run/tcpmig/NAME/lab.json, so that another process can find
/// it, also after a crash.
class Lab {
 public:
  /// Makes everything (a leftover of the same name is removed first), starts `switch run`,
  /// dispatchers and agents, and returns when all of them answer "ready". A lab of this name that
  /// is alive: throws (it says so, and `tcpmig lab down --name ..`). On any failure everything is
  /// removed again.
  static Lab up(const Options& options);
  /// Finds a lab that is up; throws sys::NotFound when there is none.
  static Lab find(const std::string& name);
  /// Stops the processes (by pid, checked to be ours), removes namespaces, pins, cgroups and state;
  /// works after kill -9 of anything. True: there was something.
  static bool down(const std::string& name);

  [[nodiscard]] const std::string& name() const noexcept { return name_; }
  [[nodiscard]] const std::vector<Node>& nodes() const noexcept { return nodes_; }
  [[nodiscard]] const Node& node(
      const std::string& name) const;  ///< throws, naming the nodes there are
  [[nodiscard]] const config::Config& config() const noexcept { return config_; }
  /// What its links suffer, as `--impair` takes it; empty: nothing.
  [[nodiscard]] const std::string& impairment() const noexcept { return impairment_; }
  /// The contract of `lab status --json`; "not_running" names the roles that do not answer.
  [[nodiscard]] nlohmann::json status() const;

  /// Runs a command in a node (setns(CLONE_NEWNET) only), with TCPMIG_CONFIG and TCPMIG_NODE set;
  /// inherits stdio. Returns its exit code (128 + signal when killed).
  int exec(const std::string& node, const std::vector<std::string>& command) const;
  /// Starts one in the background, output to `output` (empty = /dev/null). The caller ends it by
  /// pid.
  pid_t spawn(const std::string& node, const std::vector<std::string>& command,
              const std::filesystem::path& output = {}) const;

 private:
  std::string name_;
  std::vector<Node> nodes_;
  config::Config config_;
  std::string impairment_;
};

}  // namespace tcpmig::lab
