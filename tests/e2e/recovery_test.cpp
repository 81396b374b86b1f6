// SPDX-License-Identifier: MIT
// The switch loses its table: the agents announce what lives on their nodes, and nobody notices.
#include <signal.h>

#include <filesystem>
#include <future>
#include <nlohmann/json.hpp>

#include "catch.hpp"
#include "e2e/traffic.hpp"
#include "sys/netns.hpp"

using namespace tcpmig;
using namespace tcpmig::e2e;

namespace {

/// As `tcpmig switch VERB` on its machine.
void on_switch(const TestLab& lab, const std::string& verb) {
  const Output output = run_in(*lab, "switch1", {program(), "switch", verb});
  INFO(output.error);
  REQUIRE(output.code == 0);
}

void kill_switch(const TestLab& lab) {
  const auto process = lab::identify(lab.role_pid("switch1")).value();
  ::kill(process.pid, SIGKILL);
  REQUIRE(lab::wait_until(5s, [&] {
    lab::poll_exit(process.pid);
    return !lab::is_alive(process);
  }));
}

/// Everything that the switch knew is gone, and then a new one takes its place.
void replace_switch(TestLab& lab) {
  kill_switch(lab);
  on_switch(lab, "down");
  lab.restart_role("switch1");
}

bool keeps_alive(HttpClient& client, const lab::Payload& file, const std::string& under = "/") {
  client.send(get(under + file.name));
  return lab::sha256_of_bytes(client.receive().body) == file.sha256;
}

}  // namespace

TEST_CASE(
    "the switch is taken down and comes up without its table: downloads and idle "
    "connections go on") {
  const auto datapath = GENERATE(config::Datapath::kTc, config::Datapath::kXdp);
  TestLab lab({.servers = 2, .datapath = datapath});
  if (skipped(lab)) return;
  const lab::Payload large = lab.add_file("100m", 100 << 20);
  const lab::Payload small = lab.add_file("1k", 1024);
  for (const std::string node : {"server1", "server2"})
    lab.start_server(lab::ServerKind::kNginx, node);
  SlowDownload during4(lab, large), during6(lab, large, true);
  HttpClient idle(lab.netns("client1"), vip(false));
  REQUIRE(keeps_alive(idle, small));
  REQUIRE(lab::wait_until(5s, [&] { return during4.begun() && during6.begun(); }));

  for (int round = 1; round <= 2; ++round) {
    INFO("round " << round << '\n' << lab.logs());
    replace_switch(lab);
    // at once, while it recovers: a new connection
    HttpClient fresh(lab.netns("client1"), vip(false));
    CHECK(keeps_alive(fresh, small));
    CHECK(keeps_alive(idle, small));
    CHECK(
        lab::wait_until(5s, [&] { return lab::role_number(*lab, "switch1", "announced") >= 3U; }));
  }
  CHECK(during4.complete());
  CHECK(during6.complete());
  CHECK(keeps_alive(idle, small));
  CHECK(lab::role_number(*lab, "switch1", "revoked") == 0);
}

TEST_CASE(
    "the table is lost while a transfer waits for an agent that is silent: the server keeps the "
    "connection") {
  TestLab lab(
      {.servers = 1},
      pool_per_server(1, "[timeouts]\ntransfer = \"4s\"\nclosing = \"2s\"\nscan = \"500ms\"\n"));
  if (skipped(lab) ||
      skipped_in_repair("without its agent no server gets a connection, so nobody can keep it"))
    return;
  const lab::Payload small = lab.add_file("1k", 1024);
  lab.start_server(lab::ServerKind::kNginx, "server1");
  // the server's words get lost, so that nobody has heard of it when the table goes
  const auto sink = [&](const std::string& command) {
    const sys::EnterNetns inside(lab.netns("server1"));
    REQUIRE(::system(command.c_str()) == 0);
  };
  sink(
      "ip link add sink type veth peer name drain && ip link set sink arp off up && ip link set "
      "drain up");
  sink("ip route add default dev sink table 99");
  sink("ip rule add pref 5 from 100.64.0.0/10 lookup 99");
  const auto agent = lab.role_pid("server1");
  REQUIRE(::kill(agent, SIGSTOP) == 0);
  HttpClient client(lab.netns("client1"), vip(false));
  client.send(get("/server1/1k"));
  REQUIRE(
      lab::wait_until(5s, [&] { return lab::role_number(*lab, "switch1", "committed") == 1U; }));
  replace_switch(lab);
  INFO(lab.logs());
  // what has become of the transfer nobody can say: not one word to the client
  CHECK(lab::wait_until(20s, [&] { return lab::role_number(*lab, "dispatcher1", "left") == 1U; }));
  REQUIRE(::kill(agent, SIGCONT) == 0);
  CHECK(lab::wait_until(5s, [&] { return lab::role_number(*lab, "switch1", "announced") >= 1U; }));
  sink("ip rule del pref 5");
  CHECK(lab::sha256_of_bytes(client.receive().body) == small.sha256);
  CHECK(keeps_alive(client, small, "/server1/"));
}

TEST_CASE("the flow table alone is lost: `switch run` makes a new one, the flows come back") {
  TestLab lab({.servers = 1});
  if (skipped(lab)) return;
  const lab::Payload large = lab.add_file("100m", 100 << 20);
  lab.start_server(lab::ServerKind::kNginx, "server1");
  // one that reads all the time: it acknowledges while the switch knows nothing of it
  const std::string target = lab.directory() / "fetched";
  std::future<Output> reading = std::async(std::launch::async, [&] {
    return run_in(*lab, "client1",
                  {"curl", "-sS", "--limit-rate", "15M", "-o", target, url("/100m", false)});
  });
  REQUIRE(
      lab::wait_until(5s, [&] { return lab::role_number(*lab, "switch1", "committed") == 1U; }));
  kill_switch(lab);
  std::filesystem::remove(lab->config().paths("switch1").pins("switch") / "flows");
  lab.restart_role("switch1");
  INFO(lab.logs());
  CHECK(lab::wait_until(5s, [&] { return lab::role_number(*lab, "switch1", "announced") == 1U; }));
  const Output output = reading.get();
  INFO(output.error);
  CHECK(output.code == 0);
  CHECK(lab::sha256_of(target) == large.sha256);
}
