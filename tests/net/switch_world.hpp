// SPDX-License-Identifier: MIT
#pragma once
#include <unistd.h>

#include <chrono>
#include <filesystem>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "config/config.hpp"
#include "shared/flow.h"
#include "sys/netlink.hpp"
#include "sys/netns.hpp"
#include "sys/unique_fd.hpp"

// A switch on its own: one network namespace with three veths, their peers in a second one.
//
//   eth0  10.0.1.1/24, fd00:1::1/64  clients
//   eth1  10.0.2.1/24, fd00:2::1/64  nodes: d1 (id 1), d2 (id 2), dispatchers
//   eth2  10.0.3.1/24, fd00:3::1/64  nodes: s1 (id 101), s2 (id 102), servers
//   br0   a bridge: an interface whose driver has no native XDP
namespace switch_test {

/// Prints why this machine cannot run the test, and returns true.
bool cannot_run_here();

/// True as soon as `condition` is; false at the deadline.
bool eventually(const std::function<bool()>& condition,
                std::chrono::milliseconds limit = std::chrono::seconds(10));

/// The file, so that a test can change it and parse it again.
struct File {
  std::string cluster, datapath = "auto";
  std::string clients = "\"eth0\"", nodes = "\"eth1\", \"eth2\"";
  bool second_dispatcher = true, second_server = true, second_service = true;
  std::string extra;  ///< [limits], [timeouts]
  [[nodiscard]] std::string text(const std::filesystem::path& secret) const;
};

/// Makes the namespaces and enters the switch's; gives everything back at the end of its life,
/// whatever a test has left.
class World {
 public:
  World();
  ~World();
  World(const World&) = delete;
  World& operator=(const World&) = delete;

  File file;
  [[nodiscard]] tcpmig::config::Config config() const;
  [[nodiscard]] std::filesystem::path pins() const;
  [[nodiscard]] std::vector<std::string> pin_names() const;
  [[nodiscard]] tcpmig::sys::UniqueFd map(const std::string& name) const;
  /// Id of the program that the kernel has on an interface ("tc" or "xdp"); 0 = none of ours or
  /// foreign.
  [[nodiscard]] int ifindex(const std::string& interface) const;
  [[nodiscard]] const std::string& peer_netns() const { return peer_; }
  [[nodiscard]] const std::filesystem::path& directory() const { return directory_; }

 private:
  std::string name_, peer_;
  std::filesystem::path directory_;
  std::optional<tcpmig::sys::EnterNetns> inside_;
};

/// The switch of the world's file.
void up(const World& world);
void down(const World& world);
/// What it says when `act` is impossible.
std::string refusal(
    const World& world,
    const std::function<void(const tcpmig::config::Config&, const tcpmig::config::Switch&)>& act);

/// What down() must bring back: sysctls and routes as text, and the programs on the interfaces.
struct State {
  std::map<std::string, std::string> sysctls;
  std::vector<std::string> routes;
  std::vector<std::string> programs;
  bool operator==(const State&) const = default;
};
State state_of(const World& world);

/// Output of a program in this thread's namespaces.
std::string output_of(const std::string& command);

/// An entry put into the pinned table by hand: a live flow of server s1, or one that has ended.
tcpmig::abi::flow_key insert_flow(const World& world, std::uint16_t client_port,
                                  std::optional<std::chrono::nanoseconds> dead_for = {});
bool has_flow(const World& world, const tcpmig::abi::flow_key& key);

}  // namespace switch_test
