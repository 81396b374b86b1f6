// SPDX-License-Identifier: MIT
#pragma once
#include <filesystem>
#include <string>
#include <vector>

#include "lab/lab.hpp"

/// What a lab consists of, worked out before anything is made. Pure: no system call.
namespace tcpmig::lab {

/// One veth pair: `device` in a node's namespace, `peer` on a bridge in the fabric.
struct Port {
  std::string node;
  std::string netns;
  std::string device;
  std::string peer;
  std::string bridge;
  std::vector<sys::Prefix> addresses;
  std::vector<sys::Address> gateways;  ///< default routes; empty for the switch itself
  bool impaired = false;               ///< a process copies its frames (impair_process.hpp)
};

struct Plan {
  std::string name;
  std::string fabric;       ///< namespace of the bridges
  std::vector<Node> nodes;  ///< clients, switch, dispatchers, servers, and the fabric last
  std::vector<Port> ports;
  config::Datapath datapath = config::Datapath::kAuto;
  std::string impairment;  ///< as text; empty: none
};

inline constexpr const char* kBridges[] = {"net1", "net2", "net3"};
inline constexpr unsigned kMaxOfAKind = 100;  ///< clients, dispatchers, servers: each
inline constexpr const char* kVip4 = "203.0.113.10";
inline constexpr const char* kVip6 = "2001:db8:113::10";

/// Throws std::invalid_argument with one sentence: a name that is no name, a number out of range.
Plan make_plan(const Options& options);
void check_name(const std::string& name);
std::string netns_name(const std::string& lab, const std::string& node);
/// The node a namespace (or cgroup) of this lab belongs to; empty when it is not of this lab.
/// "tcpmig-a-b-server1" belongs to the lab "a-b", not to "a".
std::string node_of(const std::string& lab, const std::string& netns);

// node ids of the configuration: dispatcherN = N, serverN = 100 + N
inline constexpr unsigned kServerIdBase = 100;

/// Where a lab keeps what.
struct Paths {
  explicit Paths(const std::string& lab);
  std::filesystem::path run;     ///< /run/tcpmig/NAME
  std::filesystem::path state;   ///< run/lab.json
  std::filesystem::path config;  ///< run/tcpmig.toml
  std::filesystem::path secret;  ///< run/secret
  std::filesystem::path pins;    ///< /sys/fs/bpf/tcpmig/NAME
  std::filesystem::path lock;    ///< /run/tcpmig/NAME.lock
  [[nodiscard]] std::filesystem::path log(const std::string& node) const {
    return run / (node + ".log");
  }
};

}  // namespace tcpmig::lab
