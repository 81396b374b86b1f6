// SPDX-License-Identifier: MIT
// One function per table of the file. What takes more than one key to judge is in checks.cpp.
#include "config/sections.hpp"

#include <algorithm>
#include <cctype>
#include <limits>

#include "config/table_reader.hpp"
#include "shared/switch_maps.h"
#include "shared/wire.h"

namespace tcpmig::config {
namespace {

using namespace std::chrono_literals;

constexpr std::int64_t kMaxPort = 65'535;
constexpr std::size_t kMaxInterfaceName = 15;  // IFNAMSIZ - 1
constexpr std::size_t kMaxSocketPath = 107;    // sizeof(sockaddr_un::sun_path) - 1

/// Names become directory names (pins, run-time state) and labels.
std::string read_name(TableReader& reader, const std::string& example) {
  std::string name = reader.needed_text("name", example);
  const auto allowed = [](unsigned char c) {
    return std::isalnum(c) != 0 || c == '-' || c == '_' || c == '.';
  };
  if (name.empty()) return name;
  if (name.size() <= 64 && name.front() != '.' && std::all_of(name.begin(), name.end(), allowed))
    return name;
  reader.problem("name", quote(name) + " is no usable name",
                 "use at most 64 letters, digits, '-', '_' or '.', and no '.' in front");
  return {};
}

/// The name again, for messages about the table.
std::string titled(const std::string& kind, const std::string& name) {
  return name.empty() ? "[[" + kind + "]]" : "[[" + kind + "]] " + quote(name);
}

void check_interface(TableReader& reader, const std::string& key, const std::string& name) {
  const bool odd = std::any_of(name.begin(), name.end(),
                               [](unsigned char c) { return c == '/' || std::isspace(c) != 0; });
  if (name.empty() || (name.size() <= kMaxInterfaceName && !odd)) return;
  reader.problem(key, quote(name) + " cannot be an interface",
                 "an interface's name has at most 15 characters, none of them '/' or a space");
}

/// Returns the table of that name, nullptr when it is absent or (with a Problem) no table.
const toml::table* single(const toml::table& file, const std::string& key, Problems& problems) {
  const toml::node* node = file.get(key);
  if (node == nullptr) return nullptr;
  if (!node->is_table())
    problems.add(where_of(*node), quote(key) + " is not one table",
                 "write [" + key + "], with one bracket");
  return node->as_table();
}

void read_cluster(const toml::table& file, Draft& draft, Problems& problems) {
  const toml::node* node = file.get("cluster");
  if (node == nullptr || !node->is_table()) {
    problems.add(node == nullptr ? Where{} : where_of(*node), "there is no [cluster]",
                 "add [cluster] with secret_file = \"/etc/tcpmig/secret\"");
    return;
  }
  TableReader reader(*node->as_table(), "[cluster]", problems);
  Config& config = draft.config;
  if (reader.has("name")) config.instance = read_name(reader, "default");
  config.secret_file = reader.needed_text("secret_file", "/etc/tcpmig/secret");
  if (config.secret_file.is_relative() && !config.secret_file.empty())
    config.secret_file = config.file.parent_path() / config.secret_file;
  config.control_port = static_cast<std::uint16_t>(
      reader.integer("control_port", 1, kMaxPort).value_or(config.control_port));
  if (const auto prefix = reader.prefix("vpa4")) config.vpa4 = *prefix;
  if (const auto prefix = reader.prefix("vpa6")) config.vpa6 = *prefix;
  reader.know("name");  // also where it is absent: for "did you mean"
  reader.finish();
  draft.cluster = reader.places();
}

void read_switch(const toml::table& table, Draft& draft, Problems& problems) {
  TableReader reader(table, "[[switch]]", problems);
  Switch item;
  item.name = read_name(reader, "switch1");
  item.clients = reader.needed_texts("clients", "[\"eth0\"]");
  item.nodes = reader.needed_texts("nodes", "[\"eth1\"]");
  for (const std::string& name : item.clients) check_interface(reader, "clients", name);
  for (const std::string& name : item.nodes) check_interface(reader, "nodes", name);
  const std::string datapath = reader.choice("datapath", {"auto", "tc", "xdp"}).value_or("auto");
  item.datapath = datapath == "tc"    ? Datapath::kTc
                  : datapath == "xdp" ? Datapath::kXdp
                                      : Datapath::kAuto;
  reader.finish();
  draft.switches.push_back(reader.places());
  draft.config.switches.push_back(std::move(item));
}

std::optional<Resume> read_resume(TableReader& reader) {
  const auto word = reader.choice("resume", {"auto", "kernel", "repair"});
  if (!word) return {};
  return word == "kernel" ? Resume::kKernel : word == "repair" ? Resume::kRepair : Resume::kAuto;
}

void read_agent(const toml::table& file, Draft& draft, Problems& problems) {
  const toml::table* table = single(file, "agent", problems);
  if (table == nullptr) return;
  TableReader reader(*table, "[agent]", problems);
  draft.resume = read_resume(reader).value_or(draft.resume);
  reader.finish();
}

void read_node(const toml::table& table, Draft& draft, Problems& problems) {
  TableReader reader(table, "[[node]]", problems);
  Node item;
  item.name = read_name(reader, "server1");
  item.id = static_cast<NodeId>(reader.needed_integer("id", 1, abi::MAX_NODES - 1));
  if (!reader.has("role")) reader.missing("role", "\"dispatcher\" or \"server\"");
  item.role = reader.choice("role", {"dispatcher", "server"}).value_or("server") == "dispatcher"
                  ? Role::kDispatcher
                  : Role::kServer;
  item.address4 = reader.address("address4");
  item.address6 = reader.address("address6");
  item.interface = reader.needed_text("interface", "eth0");
  check_interface(reader, "interface", item.interface);
  item.gateway4 = reader.address("gateway4");
  item.gateway6 = reader.address("gateway6");
  item.workers =
      static_cast<unsigned>(reader.integer("workers", 0, abi::MAX_LANES - 1).value_or(0));
  item.tune_receive_sysctls = reader.boolean("tune_receive_sysctls").value_or(false);
  item.resume = read_resume(reader).value_or(draft.resume);
  if (item.role == Role::kDispatcher && reader.has("resume"))
    reader.problem("resume", "\"resume\" is given for a dispatcher",
                   "take it away: it is for servers");
  for (const std::string key : {"workers", "tune_receive_sysctls"})
    if (item.role == Role::kServer && reader.has("role") && reader.has(key))
      reader.problem(key, quote(key) + " is given for a server",
                     "take it away: it is for dispatchers");
  if (!reader.has("address4") && !reader.has("address6"))
    problems.add(reader.places().table, titled("node", item.name) + " has no address",
                 "add address4, address6 or both");
  reader.finish();
  draft.nodes.push_back(reader.places());
  draft.config.nodes.push_back(std::move(item));
}

std::optional<std::pair<std::string, std::string>> read_header(TableReader& reader) {
  const auto text = reader.text("header");
  if (!text) return {};
  const auto trim = [](std::string_view part) {
    const auto begin = part.find_first_not_of(" \t");
    if (begin == std::string_view::npos) return std::string();
    return std::string(part.substr(begin, part.find_last_not_of(" \t") + 1 - begin));
  };
  const std::size_t colon = text->find(':');
  if (colon != std::string::npos) {
    const std::string name = text->substr(0, colon);
    std::string value = trim(std::string_view(*text).substr(colon + 1));
    if (!name.empty() && name.find_first_of(" \t") == std::string::npos && !value.empty())
      return std::pair(name, std::move(value));
  }
  reader.problem("header", quote(*text) + " is no header condition",
                 "write \"Name: value\", or \"Name: *\" for \"the header is there\"");
  return {};
}

std::optional<std::string> read_path(TableReader& reader, const std::string& key) {
  auto text = reader.text(key);
  if (text && text->front() == '/' && text->find_first_of("?# ") == std::string::npos) return text;
  if (text)
    reader.problem(key, quote(*text) + " is no " + key,
                   "begin it with '/', without query ('?..') and spaces");
  return {};
}

std::optional<std::string> read_host(TableReader& reader) {
  auto text = reader.text("host");
  if (!text) return {};
  const std::string_view name = text->starts_with("*.") ? std::string_view(*text).substr(2) : *text;
  const bool port = name.find(':') != std::string_view::npos && name.front() != '[';
  if (!name.empty() && name.find_first_of("/* \t") == std::string_view::npos && !port) return text;
  reader.problem("host", quote(*text) + " is no host condition",
                 "write a name without port, as \"example.org\" or \"*.example.org\"");
  return {};
}

Route read_route(TableReader& reader) {
  Route route;
  route.host = read_host(reader);
  route.path = read_path(reader, "path");
  route.prefix = read_path(reader, "prefix");
  route.method = reader.text("method");
  const auto upper = [](unsigned char c) { return std::isupper(c) != 0 || c == '-'; };
  if (route.method && !std::all_of(route.method->begin(), route.method->end(), upper))
    reader.problem("method", quote(*route.method) + " is no method",
                   "write it in capitals, as \"GET\"");
  route.header = read_header(reader);
  route.pool = reader.needed_text("pool", "web");
  if (reader.has("path") && reader.has("prefix"))
    reader.problem("prefix", "a route has both \"path\" and \"prefix\"",
                   "take \"prefix\" away: \"path\" already says it");
  reader.finish();
  return route;
}

void read_service(const toml::table& table, Draft& draft, Problems& problems) {
  TableReader reader(table, "[[service]]", problems);
  Service item;
  item.name = read_name(reader, "web");
  item.id = static_cast<ServiceId>(reader.needed_integer("id", 1, abi::MAX_SERVICES - 1));
  item.vip4 = reader.address("vip4");
  item.vip6 = reader.address("vip6");
  item.port = static_cast<std::uint16_t>(reader.integer("port", 1, kMaxPort).value_or(item.port));
  item.protocol = reader.choice("protocol", {"http"}).value_or(item.protocol);
  if (!reader.has("vip4") && !reader.has("vip6"))
    problems.add(reader.places().table, titled("service", item.name) + " has no address",
                 "add vip4, vip6 or both");
  std::vector<Places> places;
  for (const toml::table* route : reader.tables("route")) {
    TableReader inner(*route, "[[service.route]]", problems);
    item.routes.push_back(read_route(inner));
    places.push_back(inner.places());
  }
  if (!reader.has("route"))
    problems.add(reader.places().table, titled("service", item.name) + " has no route",
                 "add [[service.route]] with pool = \"..\" below it");
  reader.finish();
  draft.services.push_back(reader.places());
  draft.routes.push_back(std::move(places));
  draft.config.services.push_back(std::move(item));
}

PoolServer read_pool_server(TableReader& reader) {
  PoolServer server;
  server.node = reader.needed_text("node", "server1");
  server.port =
      static_cast<std::uint16_t>(reader.integer("port", 1, kMaxPort).value_or(server.port));
  server.handoff = reader.text("handoff").value_or("");
  if (!server.handoff.empty() &&
      (server.handoff.front() != '/' || server.handoff.size() > kMaxSocketPath))
    reader.problem("handoff", quote(server.handoff) + " is no socket path",
                   "write an absolute path of at most 107 characters");
  reader.finish();
  return server;
}

Announce read_announce(TableReader& reader) {
  const auto text = reader.choice("client_address", {"x_forwarded_for", "proxy_v2", "none"});
  if (text == "none") return Announce::kNone;
  return text == "proxy_v2" ? Announce::kProxyV2 : Announce::kForwardedFor;
}

void read_pool(const toml::table& table, Draft& draft, Problems& problems) {
  TableReader reader(table, "[[pool]]", problems);
  Pool item;
  item.name = read_name(reader, "web");
  item.algorithm = reader.choice("algorithm", {"round_robin", "least_connections"}).value_or("") ==
                           "least_connections"
                       ? Algorithm::kLeastConnections
                       : Algorithm::kRoundRobin;
  item.relay = reader.choice("mode", {"migrate", "relay"}).value_or("") == "relay";
  item.relay_fallback = reader.choice("fallback", {"relay", "refuse"}).value_or("") != "refuse";
  item.retry_on_silence = reader.boolean("retry_on_silence").value_or(item.retry_on_silence);
  item.announce = read_announce(reader);
  std::vector<Places> places;
  for (const toml::table* server : reader.tables("servers")) {
    TableReader inner(*server, "servers of " + titled("pool", item.name), problems);
    item.servers.push_back(read_pool_server(inner));
    places.push_back(inner.places());
  }
  const auto by_descriptor = [](const PoolServer& server) { return !server.handoff.empty(); };
  if (item.relay && std::ranges::any_of(item.servers, by_descriptor))
    reader.problem("mode", "a relayed pool has a server that takes descriptors",
                   "take mode = \"relay\" away, or \"handoff\" of its servers");
  if (const toml::node* list = table.get("servers");
      list == nullptr || (list->is_array() && list->as_array()->empty()))
    reader.problem("servers", titled("pool", item.name) + " has no servers",
                   "add servers = [{ node = \"server1\", port = 80 }]");
  reader.finish();
  draft.pools.push_back(reader.places());
  draft.pool_servers.push_back(std::move(places));
  draft.config.pools.push_back(std::move(item));
}

void read_limits(const toml::table& file, Draft& draft, Problems& problems) {
  const toml::table* table = single(file, "limits", problems);
  if (table == nullptr) return;
  TableReader reader(*table, "[limits]", problems);
  const auto read = [&](const char* key, std::uint32_t& value, std::int64_t low,
                        std::int64_t high) {
    value = static_cast<std::uint32_t>(reader.integer(key, low, high).value_or(value));
  };
  constexpr std::int64_t kEntries = 1 << 26;  // 64 M: 8 GB of a hash map
  Limits& limits = draft.config.limits;
  read("flows", limits.flows, 1, kEntries);
  read("affinity", limits.affinity, 1, kEntries);
  read("tombstones", limits.tombstones, 1, kEntries);
  read("head_bytes", limits.head_bytes, 1024, abi::WIRE_SNAPSHOT_MAX);
  read("waiting", limits.waiting, 1, 10'000'000);
  read("hold_packets", limits.hold_packets, 1, 65'536);
  read("hold_bytes", limits.hold_bytes, 65'536, std::numeric_limits<std::uint32_t>::max());
  reader.finish();
  draft.limits = reader.places();
}

void read_timeouts(const toml::table& file, Draft& draft, Problems& problems) {
  const toml::table* table = single(file, "timeouts", problems);
  if (table == nullptr) return;
  TableReader reader(*table, "[timeouts]", problems);
  const auto read = [&](const char* key, std::chrono::milliseconds& value,
                        std::chrono::milliseconds longest) {
    value = reader.duration(key, longest).value_or(value);
  };
  Timeouts& timeouts = draft.config.timeouts;
  read("head", timeouts.head, 24h);
  read("closing", timeouts.closing, 24h);
  read("idle", timeouts.idle, 24h * 365);
  read("transfer", timeouts.transfer, 1h);
  read("retry", timeouts.retry, 1h);
  read("hold", timeouts.hold, 1h);
  read("delivery", timeouts.delivery, 24h);
  read("tombstone", timeouts.tombstone, 24h * 10);  // generations tell 12.4 days apart
  read("health", timeouts.health, 1h);
  read("recovery", timeouts.recovery, 1h);
  read("scan", timeouts.scan, 24h);
  reader.finish();
  draft.timeouts = reader.places();
}

}  // namespace

Draft read_sections(const toml::table& file, Problems& problems) {
  Draft draft;
  draft.config.vpa4 = sys::Prefix::parse(kDefaultVpa4).value();
  draft.config.vpa6 = sys::Prefix::parse(kDefaultVpa6).value();
  if (file.source().path) draft.config.file = *file.source().path;  // names are relative to it
  TableReader top(file, "the file", problems);
  read_cluster(file, draft, problems);
  for (const toml::table* table : top.tables("switch")) read_switch(*table, draft, problems);
  read_agent(file, draft, problems);  // before the nodes, whose default it is
  for (const toml::table* table : top.tables("node")) read_node(*table, draft, problems);
  for (const toml::table* table : top.tables("service")) read_service(*table, draft, problems);
  for (const toml::table* table : top.tables("pool")) read_pool(*table, draft, problems);
  read_limits(file, draft, problems);
  read_timeouts(file, draft, problems);
  for (const char* key : {"cluster", "agent", "limits", "timeouts"}) top.know(key);
  top.finish();
  return draft;
}

}  // namespace tcpmig::config
