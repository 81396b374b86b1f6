// SPDX-License-Identifier: MIT
// Counters of the dispatcher that no other test comes by; and that `tcpmig status` shows all there are.
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <sys/socket.h>

#include <thread>

#include "agent/counters.hpp"
#include "catch.hpp"
#include "dispatcher/stats.hpp"
#include "e2e/support.hpp"
#include "shared/node_maps.h"
#include "shared/switch_maps.h"
#include "sys/netns.hpp"

using namespace tcpmig;
using namespace tcpmig::e2e;

namespace {

std::uint64_t count(const TestLab& lab, const std::string& name) {
  return lab::role_status(*lab, "dispatcher1").at("counters").at(name).get<std::uint64_t>();
}

bool reaches(const TestLab& lab, const std::string& name, std::uint64_t value) {
  INFO(name);
  const bool done = lab::wait_until(10s, [&] { return count(lab, name) >= value; });
  CHECK(done);
  return done;
}

void wait_for_relay(const TestLab& lab) {
  CHECK(lab::wait_until(
      10s, [&] { return !lab::role_status(*lab, "dispatcher1").at("relayed").empty(); }));
}

/// A request whose head needs several COMMIT parts: so it is the agent that opens it.
std::string large_request(const std::string& path) {
  std::string more;
  for (int i = 0; i < 4; ++i)
    more += "X-" + std::to_string(i) + ": " + std::string(1'000, 'x') + "\r\n";
  return get(path, more + "Connection: close\r\n");
}

}  // namespace

TEST_CASE("status shows every counter of every role") {
  TestLab lab({.servers = 1});
  const auto has = [&](const std::string& node, const std::vector<std::string>& names) {
    const Output output = run_in(*lab, node, {program().string(), "status", "--json"});
    REQUIRE(output.code == 0);
    for (const std::string& name : names) {
      INFO(node << ' ' << name);
      CHECK(output.out.find('"' + name + '"') != std::string::npos);
    }
  };
#define X(number, json, text) json,
  has("switch1", {SWITCH_COUNTERS(X)});
  has("server1", {NODE_COUNTERS(X)});
#undef X
#define X(name, text) #name,
  has("server1", {TCPMIG_AGENT_COUNTERS(X)});
#undef X
#define X(number, json) json,
  has("dispatcher1", {DISPATCHER_COUNTERS(X)});
#undef X
}

TEST_CASE("what the dispatcher counts of ordinary connections, and of clients that go") {
  TestLab lab({.servers = 1});
  if (skipped(lab)) return;
  const lab::Payload file = lab.add_file("1k", 1024);
  lab.start_server(lab::ServerKind::kNginx, "server1");
  {
    HttpClient half(lab.netns("client1"), vip(false));
    half.send("GET /1k HTTP/1.1\r\nHo");
    reaches(lab, "accepted", 1);
    half.reset();
  }
  reaches(lab, "client_gone_waiting", 1);
  HttpClient client(lab.netns("client1"), vip(false));
  client.send(get("/1k", "Connection: close\r\n"));
  CHECK(lab::sha256_of_bytes(client.receive().body) == file.sha256);
  reaches(lab, "transferred", 1);
  CHECK(count(lab, "accepted") == 2);
  CHECK(count(lab, "heads") == 1);
  CHECK(count(lab, "frozen") == 1);
  CHECK(count(lab, "commits_sent") >= 1);
  {  // urgent data cannot be carried
    HttpClient urgent(lab.netns("client1"), vip(false));
    const std::string request = get("/1k", "Connection: close\r\n");
    REQUIRE(::send(urgent.fd(), request.data(), request.size(), MSG_MORE) > 0);
    REQUIRE(::send(urgent.fd(), "!", 1, MSG_OOB) == 1);  // in the same segment
    reaches(lab, "freeze_refused", 1);
  }
  wait_for_relay(lab);
}

TEST_CASE("what a client sends while no COMMIT gets through follows the connection") {
  TestLab lab({.servers = 1},
              pool_per_server(1, "[limits]\nhold_packets = 4\n[timeouts]\ntransfer = \"20s\"\n"));
  if (skipped(lab)) return;
  lab.add_file("1k", 1024);
  lab.start_server(lab::ServerKind::kNginx, "server1");
  INFO(lab.logs());
  const auto route = [&](const std::string& verb) {
    const sys::EnterNetns inside(lab.netns("dispatcher1"));
    REQUIRE(::system(("ip route " + verb + " unreachable 10.0.2.1/32").c_str()) == 0);
  };
  route("add");  // the switch's own address; the way to the clients is another route
  HttpClient client(lab.netns("client1"), vip(false));
  const int on = 1;
  REQUIRE(::setsockopt(client.fd(), IPPROTO_TCP, TCP_NODELAY, &on, sizeof on) == 0);
  client.send(get("/server1/1k"));
  reaches(lab, "send_failed", 1);
  const std::string next = get("/server1/1k", "Connection: close\r\n");
  for (const char byte : next) client.send(std::string(1, byte));
  reaches(lab, "captures_dropped_full", 1);
  route("del");
  CHECK(client.receive().status == 200);
  CHECK(client.receive().status == 200);  // also what was dropped comes: again, from the client
  reaches(lab, "captures_sent_on", 1);
}

TEST_CASE("a server that is silent: repeats, then the next one for what may be repeated") {
  TestLab lab({.servers = 2}, pool_per_server(2, "[timeouts]\ntransfer = \"1s\"\n"));
  if (skipped(lab)) return;
  lab.add_file("1k", 1024);
  std::filesystem::create_directory_symlink(".", lab.documents() / "all");
  for (const char* node : {"server1", "server2"}) lab.start_server(lab::ServerKind::kNginx, node);
  INFO(lab.logs());
  const pid_t agent = lab.role_pid("server1");
  REQUIRE(::kill(agent, SIGSTOP) == 0);
  for (int i = 0; i < 2; ++i) {  // round robin: one of them goes to server1 first
    HttpClient client(lab.netns("client1"), vip(false));
    client.send(large_request("/all/1k"));
    CHECK(client.receive().status == 200);
  }
  for (const char* name :
       {"commits_repeated", "silent_servers", "retried_on_silence", "tried_next_server"})
    reaches(lab, name, 1);
  REQUIRE(::kill(agent, SIGCONT) == 0);
}

TEST_CASE("what the dispatcher counts of what it relays") {
  TestLab lab({.servers = 2},
              "[[service]]\nname = \"web\"\nid = 1\nvip4 = \"203.0.113.10\"\nvip6 = "
              "\"2001:db8:113::10\"\nport = 80\n[[service.route]]\nprefix = \"/\"\npool = \"all\"\n"
              "[[pool]]\nname = \"all\"\nmode = \"relay\"\nservers = [{ node = \"server1\" }, "
              "{ node = \"server2\" }]\n");
  const lab::Payload file = lab.add_file("1k", 1024);
  lab.start_server(lab::ServerKind::kNginx, "server1");  // server2 does not listen
  // a server whose agent has not been heard yet is asked last
  for (int i = 0; i < 2 || (i < 40 && count(lab, "relay_not_connected") == 0); ++i) {
    HttpClient client(lab.netns("client1"), vip(false));
    client.send(get("/1k", "Connection: close\r\n"));
    CHECK(lab::sha256_of_bytes(client.receive().body) == file.sha256);
  }
  reaches(lab, "relay_not_connected", 1);
  reaches(lab, "relayed_bytes_in", 2 * 20);
  reaches(lab, "relayed_bytes_out", 2 * 1024);
}

TEST_CASE("a control datagram that does not fit the dispatcher's own interface is counted") {
  TestLab lab({.servers = 1});
  if (skipped(lab)) return;
  lab.add_file("1k", 1024);
  lab.start_server(lab::ServerKind::kNginx, "server1");
  {
    const sys::EnterNetns inside(lab.netns("dispatcher1"));
    REQUIRE(::system("ip link set eth0 mtu 1400") == 0);
  }
  HttpClient client(lab.netns("client1"), vip(false));
  client.send(large_request("/1k"));
  CHECK(client.receive().status != 0);
  reaches(lab, "send_failed", 1);
}

TEST_CASE("a flow that no server takes is taken back, and counted") {
  TestLab lab({.servers = 1});
  HttpClient client(lab.netns("client1"), vip(false));
  client.send(get("/1k", "Connection: close\r\n"));
  CHECK(client.receive().status == 503);
  reaches(lab, "taken_back", 1);
}
