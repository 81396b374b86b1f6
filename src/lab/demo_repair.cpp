// SPDX-License-Identifier: MIT
#include <sstream>

#include "lab/demo_parts.hpp"
#include "lab/generate.hpp"
#include "lab/http_client.hpp"
#include "lab/process.hpp"

namespace tcpmig::lab::demo_parts {
namespace {

std::string socket_of(const std::filesystem::path& directory, const std::string& node) {
  return (directory / (node + ".sock")).string();
}

/// One request over a connection of its own, asked twice: the second time the server is asked
/// directly.
void show_request(Report& report, const Lab& lab, const sys::Endpoint& target,
                  const std::vector<unsigned>& widths) {
  HttpClient client(lab.node("client1").netns, target);
  std::vector<std::string> servers;
  std::vector<std::string> peers;
  for (int request = 0; request < 2; ++request) {
    client.send(get("/"));
    Response response = client.receive();
    servers.push_back(response.headers["server"]);
    peers.push_back(response.headers["x-peer"]);
  }
  const std::string own = client.local().str();
  report.row({target.address.str(), own, peers[0], servers[0]}, widths);
  report.document()["requests"].push_back({{"service", target.address.str()},
                                           {"client", own},
                                           {"client_seen", peers},
                                           {"server", servers}});
  report.check(peers[0] == own && peers[1] == own, "the server sees " + own);
  report.check(servers[0] == servers[1] && !servers[0].empty(), "one server answers both requests");
}

}  // namespace

std::string repair_config(unsigned servers, const std::filesystem::path& directory) {
  std::ostringstream text;
  text << web_service()
       << "\n[[service.route]]\nprefix = \"/\"\npool = "
          "\"descriptors\"\n\n"
       << "[[pool]]\nname = \"descriptors\"\nalgorithm = \"round_robin\"\nservers = [\n";
  for (unsigned i = 1; i <= servers; ++i) {
    const std::string node = "server" + std::to_string(i);
    text << "  { node = \"" << node << "\", port = 80, handoff = \"" << socket_of(directory, node)
         << "\" },\n";
  }
  text << "]\n";
  return text.str();
}

void show_repair(Report& report, const Lab& lab, const std::filesystem::path& directory) {
  std::vector<ProcessId> servers;
  const std::filesystem::path self = std::filesystem::read_symlink("/proc/self/exe");
  for (const Node& node : lab.nodes()) {
    if (node.role != "server") continue;
    const std::string socket = socket_of(directory, node.name);
    const pid_t pid =
        lab.spawn(node.name, {self, "lab", "fd-server", "--socket", socket, "--as", node.name},
                  directory / (node.name + ".fd-server.log"));
    if (const auto process = identify(pid)) servers.push_back(*process);
    report.check(
        wait_until(std::chrono::seconds(5), [&] { return std::filesystem::exists(socket); }),
        node.name + " starts");
  }
  report.title(
      "Repair resume: the agent restores the connection and hands it to a server of ours as a "
      "descriptor");
  const std::vector<unsigned> widths = {20, 24, 24};
  report.row({"service", "client", "client the server sees", "server"}, widths);
  const config::Service& service = lab.config().services.at(0);
  for (int round = 0; round < 3; ++round)
    for (const sys::Address& vip : {service.vip4, service.vip6})
      show_request(report, lab, {vip, service.port}, widths);
  terminate(servers, std::chrono::seconds(2));
}

}  // namespace tcpmig::lab::demo_parts
