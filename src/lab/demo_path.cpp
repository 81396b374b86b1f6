// SPDX-License-Identifier: MIT
#include <algorithm>
#include <memory>

#include "lab/demo_parts.hpp"
#include "lab/http_client.hpp"
#include "lab/interrupt.hpp"
#include "lab/role_status.hpp"

namespace tcpmig::lab::demo_parts {
namespace {

constexpr std::size_t kLargest = 2;  // of Stage::files

/// The switch's counters around something that happens to one connection after its transfer.
struct Around {
  NodeTraffic dispatcher_before, dispatcher_after;
  std::uint64_t servers_before = 0, servers_after = 0;
};

std::uint64_t packets_of_servers(const Stage& stage) {
  std::uint64_t sum = 0;
  for (const StockServer& server : stage.servers) {
    const NodeTraffic traffic = node_traffic(stage.lab, server.node());
    sum += traffic.packets_in + traffic.packets_out;
  }
  return sum;
}

template <typename Act>
Around observe(const Stage& stage, Act&& act) {
  Around around;
  around.dispatcher_before = node_traffic(stage.lab, "dispatcher1");
  around.servers_before = packets_of_servers(stage);
  act();
  around.servers_after = packets_of_servers(stage);
  around.dispatcher_after = node_traffic(stage.lab, "dispatcher1");
  return around;
}

void show(const Stage& stage, const std::string& what, const Around& around) {
  const auto packets = [](const NodeTraffic& traffic) {
    return traffic.packets_in + traffic.packets_out;
  };
  const auto seen = packets(around.dispatcher_after) - packets(around.dispatcher_before);
  stage.report.row(
      {what, std::to_string(seen), std::to_string(around.servers_after - around.servers_before)},
      {50, 14});
  stage.report.check(seen == 0, what + ": the dispatcher sees no packet");
  stage.report.check(around.servers_after > around.servers_before,
                     what + ": the servers see packets");
  stage.report.document()["path"].push_back(
      {{"what", what},
       {"packets_dispatcher", seen},
       {"packets_servers", around.servers_after - around.servers_before}});
}

std::string family_of(const sys::Endpoint& target) {
  return target.address.is_ipv4() ? "v4" : "v6";
}

std::string get_on(const std::string& path, bool last) {
  return get("/" + path, last ? "Connection: close\r\n" : "");
}

/// A connection that has been moved by its first request to a server that keeps it: asked for until
/// round robin gives one.
std::unique_ptr<HttpClient> kept_connection(const Stage& stage, const sys::Endpoint& target) {
  for (int attempt = 0; attempt < 20; ++attempt) {
    auto client = std::make_unique<HttpClient>(stage.lab.node("client1").netns, target);
    client->send(get_on(stage.files.front().name, false));
    if (client->receive().keeps_alive) return client;
  }
  return nullptr;
}

/// The first request moves the connection; the others must go straight on.
void show_keep_alive(const Stage& stage, const sys::Endpoint& target) {
  const auto client = kept_connection(stage, target);
  if (!stage.report.check(client != nullptr, "a connection comes to a server that keeps it"))
    return;
  const Payload& file = stage.files.front();
  unsigned right = 0;
  const Around around = observe(stage, [&] {
    for (int request = 2; request <= 100; ++request) {
      throw_if_interrupted();
      client->send(get_on(file.name, false));
      if (sha256_of_bytes(client->receive().body) == file.sha256) ++right;
    }
  });
  stage.report.check(right == 99, "each of 99 more requests gets the file",
                     std::to_string(99 - right) + " did not");
  show(stage, "requests 2..100 on a kept-alive connection, " + family_of(target), around);
}

/// Counted from the first byte of the answer on: by then the connection has moved.
void show_download(const Stage& stage, const sys::Endpoint& target) {
  HttpClient client(stage.lab.node("client1").netns, target);
  const Payload& file = stage.files.at(kLargest);
  client.send(get_on(file.name, true));
  const Response head = client.receive(false);
  stage.report.check(head.status == 200, "the download begins");
  std::string body;
  const Around around = observe(stage, [&] { body = client.receive_all(); });
  stage.report.check(sha256_of_bytes(body) == file.sha256, "the download comes complete");
  show(stage, human_size(file.size) + " after the head of the answer, " + family_of(target),
       around);
}

}  // namespace

void show_path(Stage& stage) {
  stage.report.title(
      "After the transfer the dispatcher is out of the path: packets the switch forwarded (its "
      "counters)");
  stage.report.row({"", "dispatcher1", "servers"}, {50, 14});
  const config::Service& service = stage.lab.config().services.at(0);
  for (const sys::Address& vip : {service.vip4, service.vip6}) {
    show_download(stage, {vip, service.port});
    const bool kept = std::ranges::any_of(
        stage.servers, [](const StockServer& server) { return keeps_alive(server.kind()); });
    if (kept) show_keep_alive(stage, {vip, service.port});
  }
}

}  // namespace tcpmig::lab::demo_parts
