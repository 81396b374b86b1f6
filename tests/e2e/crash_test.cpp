// SPDX-License-Identifier: MIT
// The data path outlives its daemons (invariant 5): kill -9 of any of them disturbs no connection
// that was migrated.
#include <signal.h>

#include "catch.hpp"
#include "e2e/traffic.hpp"
#include "lab/teardown.hpp"

using namespace tcpmig;
using namespace tcpmig::e2e;

namespace {

void kill_role(const TestLab& lab, const std::string& node) {
  const auto process = lab::identify(lab.role_pid(node)).value();
  ::kill(process.pid, SIGKILL);
  REQUIRE(lab::wait_until(5s, [&] {
    lab::poll_exit(process.pid);
    return !lab::is_alive(process);
  }));
}

bool fetches(const TestLab& lab, const lab::Payload& file) {
  HttpClient client(lab.netns("client1"), vip(false));
  client.send(get("/" + file.name, "Connection: close\r\n"));
  return lab::sha256_of_bytes(client.receive().body) == file.sha256;
}

}  // namespace

TEST_CASE("kill -9 of dispatcher, agent and switch: a download goes on, a restart adopts") {
  const auto datapath = GENERATE(config::Datapath::kTc, config::Datapath::kXdp);
  TestLab lab({.servers = 1, .datapath = datapath});
  if (skipped(lab)) return;
  const lab::Payload large = lab.add_file("100m", 100 << 20);
  const lab::Payload small = lab.add_file("1k", 1024);
  lab.start_server(lab::ServerKind::kNginx, "server1");

  for (const std::string victim : {"dispatcher1", "server1", "switch1"}) {
    INFO(victim << '\n' << lab.logs());
    SlowDownload during4(lab, large);
    SlowDownload during6(lab, large, true);
    REQUIRE(lab::wait_until(5s, [&] { return during4.begun() && during6.begun(); }));
    kill_role(lab, victim);
    CHECK(during4.complete());
    CHECK(during6.complete());

    lab.restart_role(victim);
    CHECK(lab::wait_until(10s, [&] { return fetches(lab, small); }));
  }
}

TEST_CASE("a restart of the switch in the middle of a download keeps its flow entry") {
  TestLab lab({.servers = 1});
  if (skipped(lab)) return;
  const lab::Payload large = lab.add_file("100m", 100 << 20);
  lab.start_server(lab::ServerKind::kNginx, "server1");
  SlowDownload download(lab, large);
  REQUIRE(lab::wait_until(5s, [&] { return download.begun(); }));
  kill_role(lab, "switch1");
  lab.restart_role("switch1");
  CHECK(download.complete());
  CHECK(lab::role_number(*lab, "switch1", "committed") == 1);  // the counters were adopted too
}

TEST_CASE("kill -9 of everything, then down: nothing is left") {
  std::string name;
  {
    TestLab lab;
    name = lab->name();
    for (const std::string node : {"dispatcher1", "server1", "server2", "switch1"})
      kill_role(lab, node);
  }
  CHECK(lab::leftovers(name).empty());
}
