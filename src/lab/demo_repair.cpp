// SPDX-License-Identifier: MIT
#include <sstream>

#include "lab/demo_parts.hpp"
#include "lab/fd_server.hpp"
#include "lab/http_client.hpp"
#include "lab/plan.hpp"
#include "lab/process.hpp"
#include "sys/netns.hpp"

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
  report.check(peers[0] == own && peers[1] == own, "the server should see " + own);
  report.check(servers[0] == servers[1] && !servers[0].empty(),
               "both requests should have been answered by one server");
}

}  // namespace

std::string repair_config(unsigned servers, const std::filesystem::path& directory) {
  std::ostringstream text;
  text << "[[service]]\nname = \"web\"\nid = 1\nvip4 = \"" << kVip4 << "\"\nvip6 = \"" << kVip6
       << "\"\nport = 80\nprotocol = \"http\"\n\n[[service.route]]\nprefix = \"/\"\npool = "
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
  for (const Node& node : lab.nodes()) {
    if (node.role != "server") continue;
    const std::string socket = socket_of(directory, node.name);
    const sys::UniqueFd netns = sys::open_netns(node.netns);
    const pid_t pid = start_function(netns.get(), [&] { return fd_server(socket, node.name); });
    if (const auto process = identify(pid)) servers.push_back(*process);
    report.check(
        wait_until(std::chrono::seconds(5), [&] { return std::filesystem::exists(socket); }),
        node.name + " does not start");
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
