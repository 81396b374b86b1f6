// SPDX-License-Identifier: MIT
#pragma once
#include <chrono>
#include <cstdint>
#include <expected>
#include <filesystem>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "sys/address.hpp"
#include "sys/role_lock.hpp"

namespace tcpmig::config {

using NodeId = std::uint16_t;     ///< 1..1023
using ServiceId = std::uint16_t;  ///< 1..16383

enum class Role { kDispatcher, kServer };
enum class Datapath { kAuto, kTc, kXdp };
enum class Algorithm { kRoundRobin, kLeastConnections };
/// How a server's agent makes a connection of a transfer.
enum class Resume {
  kAuto,    ///< by the kernel where it can, else by the program
  kKernel,  ///< by the kernel (bpf_sk_assign_tcp_reqsk) or not at all
  kRepair,  ///< by TCP_REPAIR, for programs that take it: under `tcpmig exec`
};
/// How a server learns who the client is when the connection is relayed (relay/opening.hpp).
enum class Announce { kNone, kProxyV2, kForwardedFor };

/// [[switch]]: an L3 router that runs the steering programs.
struct Switch {
  std::string name;
  std::vector<std::string> clients;  ///< interfaces towards clients
  std::vector<std::string> nodes;    ///< interfaces towards dispatchers and servers
  Datapath datapath = Datapath::kAuto;
};

/// [[node]]
struct Node {
  std::string name;
  NodeId id = 0;
  Role role = Role::kServer;
  sys::Address address4;  ///< own address; unset = none
  sys::Address address6;
  std::string interface;  ///< where packets of the switch come in
  sys::Address gateway4;  ///< the switch as the node sees it; unset = the gateway of the kernel's
                          ///< route to a VIP
  sys::Address gateway6;
  unsigned workers = 0;  ///< dispatcher: event loops; 0 = one per core
  bool tune_receive_sysctls =
      false;  ///< dispatcher: also set tcp_rmem[1], tcp_moderate_rcvbuf for its network namespace
  Resume resume = Resume::kAuto;  ///< server: its own, or that of [agent]
};

/// [[service.route]]: every condition given must hold; the first route that matches wins.
struct Route {
  std::optional<std::string> host;    ///< exact, case-insensitive, port ignored; "*.example.org"
                                      ///< matches any one or more labels before
  std::optional<std::string> path;    ///< exact path (query ignored)
  std::optional<std::string> prefix;  ///< path prefix, at a segment boundary
  std::optional<std::string> method;
  std::optional<std::pair<std::string, std::string>>
      header;  ///< name (case-insensitive) and exact value; "*" = present
  std::string pool;
};

/// [[service]]
struct Service {
  std::string name;
  ServiceId id = 0;
  sys::Address vip4;
  sys::Address vip6;
  std::uint16_t port = 80;
  std::string protocol = "http";
  std::vector<Route> routes;
};

struct PoolServer {
  std::string node;
  NodeId node_id = 0;
  std::uint16_t port = 80;
  /// Path of a Unix socket (SOCK_SEQPACKET) on the node: connections are handed to the program that
  /// listens there (tcpmig/handover.hpp) instead of being given to a listener of the port, whatever
  /// `resume` says. Empty = a listener.
  std::string handoff;
  bool operator==(const PoolServer&) const = default;
};

/// [[pool]]
struct Pool {
  std::string name;
  Algorithm algorithm = Algorithm::kRoundRobin;
  bool relay = false;          ///< mode = "relay": never moved; the servers need no agent
  bool relay_fallback = true;  ///< what cannot be moved is relayed; false: answered with 503
  bool retry_on_silence =
      true;  ///< an idempotent request goes to another server when one is silent
  Announce announce = Announce::kForwardedFor;  ///< to a relayed server
  std::vector<PoolServer> servers;
};

struct Limits {
  std::uint32_t flows = 1'048'576;  ///< entries of the switch's owned-flow table
  std::uint32_t affinity = 262'144;
  std::uint32_t tombstones = 262'144;  ///< on each server
  std::uint32_t head_bytes = 65'536;   ///< largest request head
  std::uint32_t waiting = 100'000;  ///< connections of one dispatcher that wait for their request
  std::uint32_t hold_packets = 64;  ///< early packets held for one flow
  std::uint32_t hold_bytes = 16'777'216;  ///< early packets held on one node
};

struct Timeouts {
  std::chrono::milliseconds head{10'000};  ///< accept to complete head, else 408
  std::chrono::milliseconds closing{60'000};
  std::chrono::milliseconds idle{3'600'000};  ///< lease of an idle flow on the switch
  std::chrono::milliseconds transfer{2'000};  ///< COMMIT to RESUMED, all repeats included
  std::chrono::milliseconds retry{50};  ///< first repeat of a COMMIT, at the earliest; doubles
  std::chrono::milliseconds hold{1'000};
  std::chrono::milliseconds delivery{
      60'000};  ///< a server that reads nothing of a long request for so long has given up
  std::chrono::milliseconds tombstone{
      60'000};  ///< how long an ended connection's generation is remembered
  std::chrono::milliseconds health{
      1'000};  ///< a dispatcher that is not heard for so long gets no new clients; three times as long: it is dead
  std::chrono::milliseconds recovery{
      2'000};  ///< how long a switch without its table waits for the nodes to announce their flows
  std::chrono::milliseconds scan{
      5'000};  ///< how often an agent compares its flows with its sockets (GONE, RENEW)
};

/// The one file of the cluster, checked and with names resolved.
struct Config {
  std::filesystem::path file;
  std::string instance = "default";  ///< [cluster] name: separates pins and run-time state of
                                     ///< several clusters on one machine
  std::filesystem::path secret_file;
  std::uint16_t control_port = 7420;
  sys::Prefix vpa4;  ///< default 100.64.0.0/10
  sys::Prefix vpa6;  ///< default fd7c::/64
  std::vector<Switch> switches;
  std::vector<Node> nodes;
  std::vector<Service> services;
  std::vector<Pool> pools;
  Limits limits;
  Timeouts timeouts;

  [[nodiscard]] const Node* find_node(const std::string& name) const;
  [[nodiscard]] const Node* find_node(NodeId id) const;
  [[nodiscard]] const Switch* find_switch(const std::string& name) const;
  [[nodiscard]] const Service* find_service(ServiceId id) const;
  [[nodiscard]] const Pool* find_pool(const std::string& name) const;
  [[nodiscard]] std::vector<const Node*> with_role(Role role) const;
  [[nodiscard]] sys::RolePaths paths(const std::string& node) const { return {instance, node}; }
};

/// One thing that is wrong with a file: "tcpmig.toml:12:3: unknown key \"prot\" in [[service]]: did
/// you mean \"port\"?"
struct Problem {
  std::string file;
  unsigned line = 0;
  unsigned column = 0;
  std::string what;  ///< what is wrong
  std::string fix;   ///< what to write instead
  [[nodiscard]] std::string str() const;
};

/// Parses and checks everything (unknown keys, types, ranges, duplicate names and ids, address
/// clashes, missing pools and nodes, a v6 service on nodes without address6, ..). All problems are
/// returned, in file order. Never throws on content; a file that cannot be read is a Problem too.
std::expected<Config, std::vector<Problem>> load(const std::filesystem::path& file);
/// The same from text; `name` is used in messages.
std::expected<Config, std::vector<Problem>> parse(std::string_view text, const std::string& name);

/// Whether a path lies in a route's prefix, at a segment boundary: "/img" holds "/img" and "/img/a", not "/images"; "/img/"
/// what is below it.
bool in_prefix(std::string_view prefix, std::string_view path);

/// Virtual private addresses (docs/architecture.md; bpf/shared/switch_maps.h has the layout).
sys::Address vpa4(const Config& config, NodeId node, ServiceId service);
sys::Address vpa6(const Config& config, NodeId node, ServiceId service);
/// Of a node itself, not of a service (number 0 is none): where its agent's own connections to its servers come from.
sys::Address own_vpa(const Config& config, NodeId node, bool ipv4);
sys::Prefix vpa4_block(const Config& config, NodeId node);  ///< a /18
sys::Prefix vpa6_block(const Config& config, NodeId node);  ///< a /112

}  // namespace tcpmig::config
