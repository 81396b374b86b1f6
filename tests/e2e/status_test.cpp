// SPDX-License-Identifier: MIT
// What tcpmig says of itself, and what bpftool reads in its maps.
#include "catch.hpp"
#include "e2e/support.hpp"

using namespace tcpmig;
using namespace tcpmig::e2e;
using nlohmann::json;

TEST_CASE("status --json of every role") {
  TestLab lab;
  for (const std::string node : {"switch1", "dispatcher1", "server1", "server2"}) {
    INFO(node);
    const Output output = run_in(*lab, node, {program().string(), "status", "--json"});
    INFO(output.out << output.error);
    REQUIRE(output.code == 0);
    const json status = json::parse(output.out);
    CHECK(output.out.find(node) != std::string::npos);
    const json direct = lab::role_status(*lab, node);
    CHECK(direct.at("node") == node);
    CHECK(direct.at("ready") == true);
    CHECK(direct.at("pid") == lab->node(node).pids.at(0));
    CHECK(run_in(*lab, node, {program().string(), "status"}).code == 0);
  }
}

TEST_CASE("flows and the pinned flow table name a migrated connection") {
  TestLab lab({.servers = 1});
  if (skipped(lab)) return;
  lab.add_file("1k", 1024);
  lab.start_server(lab::ServerKind::kNginx, "server1");
  HttpClient client(lab.netns("client1"), vip(false));
  client.send(get("/1k"));
  REQUIRE(client.receive().status == 200);

  const Output flows = run_in(*lab, "switch1", {program().string(), "flows", "--json"});
  INFO(flows.out << flows.error);
  REQUIRE(flows.code == 0);
  CHECK(json::parse(flows.out).size() == 1);
  for (const std::string& word : {client.local().address.str(), std::to_string(client.local().port),
                                  std::string("203.0.113.10"), std::string("server1")})
    CHECK(flows.out.find(word) != std::string::npos);

  const Output dump = run({"bpftool", "-j", "map", "dump", "pinned",
                           "/sys/fs/bpf/tcpmig/" + lab->name() + "/switch1/switch/flows"});
  INFO(dump.out << dump.error);
  REQUIRE(dump.code == 0);
  for (const std::string field :
       {"client_port", "vip_port", "committed_ns", "bytes_in", "generation", "spoke"})
    CHECK(dump.out.find("\"" + field + "\"") != std::string::npos);
}

TEST_CASE("flows: every filter, on rows that are there") {
  TestLab lab({.servers = 2}, pool_per_server(2));
  if (skipped(lab)) return;
  lab.add_file("1k", 1024);
  for (const std::string node : {"server1", "server2"})
    lab.start_server(lab::ServerKind::kNginx, node);
  std::vector<std::unique_ptr<HttpClient>> clients;
  for (const std::string node : {"server1", "server1", "server2"}) {
    clients.push_back(std::make_unique<HttpClient>(lab.netns("client1"), vip(node == "server2")));
    clients.back()->send(get("/" + node + "/1k"));
    REQUIRE(clients.back()->receive().status == 200);
  }
  const auto rows = [&](std::vector<std::string> filter) {
    filter.insert(filter.begin(), {program().string(), "flows", "--json"});
    const Output output = run_in(*lab, "switch1", filter);
    INFO(output.error);
    REQUIRE(output.code == 0);
    return json::parse(output.out).size();
  };
  CHECK(rows({}) == 3);
  CHECK(rows({"--owner", "server1"}) == 2);
  CHECK(rows({"--owner", "server2"}) == 1);
  CHECK(rows({"--owner", "dispatcher1"}) == 0);
  CHECK(rows({"--service", "web"}) == 3);
  CHECK(rows({"--client", "10.0.1.2"}) == 2);
  CHECK(rows({"--client", "fd00:1:0::0:2"}) == 1);  // in any form
  CHECK(rows({"--client", "10.0.1.9"}) == 0);
  CHECK(rows({"--state", "open"}) == 3);
  CHECK(rows({"--state", "moved"}) == 0);
  CHECK(rows({"--owner", "server1", "--client", "10.0.1.2", "--state", "open"}) == 2);
  clients.pop_back();
  CHECK(lab::wait_until(5s, [&] { return rows({"--state", "open"}) == 2; }));
  const Output text = run_in(*lab, "switch1", {program().string(), "flows", "--owner", "server1"});
  CHECK(text.out.find("CLIENT") == 0);
  CHECK(text.out.ends_with("2 flows\n"));
}

TEST_CASE("a second start of a role says so and harms nothing") {
  TestLab lab({.servers = 1});
  for (const auto& [node, role] :
       {std::pair("switch1", "switch"), std::pair("dispatcher1", "dispatcher"),
        std::pair("server1", "agent")}) {
    const Output again = run_in(*lab, node, {program().string(), role, "run"}, 10s);
    INFO(node << ": " << again.error);
    CHECK(again.code == 4);
    CHECK(again.error.find("already running") != std::string::npos);
    CHECK(lab::role_status(*lab, node).at("ready") == true);
  }
}
