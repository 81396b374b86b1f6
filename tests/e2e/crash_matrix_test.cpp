// SPDX-License-Identifier: MIT
// Whoever dies, and wherever its connection stands: the client gets its answer, or a proper end.
// docs/reliability.md shows what is expected here as a table.
#include <poll.h>
#include <signal.h>

#include <filesystem>
#include <optional>

#include "catch.hpp"
#include "e2e/traffic.hpp"

using namespace tcpmig;
using namespace tcpmig::e2e;

namespace {

/// A relayed connection beside the moved ones.
const char* const kRelayed = R"(
[[pool]]
name = "relayed"
mode = "relay"
servers = [{ node = "server1", port = 80 }]
[[service.route]]
prefix = "/relayed"
pool = "relayed"
)";

lab::ProcessId process_of(const TestLab& lab, const std::string& node) {
  return lab::identify(lab.role_pid(node)).value();
}

void kill_process(const lab::ProcessId& process) {
  ::kill(process.pid, SIGKILL);
  REQUIRE(lab::wait_until(5s, [&] {
    lab::poll_exit(process.pid);
    return !lab::is_alive(process);
  }));
}

void kill_role(const TestLab& lab, const std::string& node) { kill_process(process_of(lab, node)); }

bool readable(const HttpClient& client) {
  pollfd wanted{client.fd(), POLLIN, 0};
  return ::poll(&wanted, 1, 5'000) == 1;
}

/// One client at each stage. The agent of server2 is stopped: what goes there is not confirmed, and where it comes in
/// several parts not opened.
struct Stages {
  explicit Stages(config::Datapath datapath)
      : lab({.servers = 2, .datapath = datapath}, pool_per_server(2, kRelayed)) {}

  void set_up() {
    small = lab.add_file("1k", 1024);
    large = lab.add_file("32m", 32 << 20);
    std::filesystem::create_directory_symlink(".", lab.documents() / "relayed");
    for (const std::string node : {"server1", "server2"})
      lab.start_server(lab::ServerKind::kNginx, node);
    for (auto* client : {&waiting, &unopened, &unconfirmed, &moved, &relayed})
      client->emplace(lab.netns("client1"), vip(false));
    moved->send(get("/server1/32m"));
    relayed->send(get("/relayed/32m"));
    REQUIRE(readable(*moved));
    REQUIRE(readable(*relayed));
    waiting->send("GET /server1/1k HTTP/1.1\r\nHost: x\r\n");
    stopped = process_of(lab, "server2");
    ::kill(stopped.pid, SIGSTOP);
    unconfirmed->send(get("/server2/1k"));
    std::string long_head;  // nginx takes 8 KB a line
    for (const char* name : {"X-A: ", "X-B: ", "X-C: "})
      long_head += name + std::string(4'000, 'x') + "\r\n";
    unopened->send(get("/server2/1k", long_head));
    REQUIRE(
        lab::wait_until(5s, [&] { return lab::role_number(*lab, "switch1", "committed") == 3; }));
  }
  void go_on() const { ::kill(stopped.pid, SIGCONT); }

  [[nodiscard]] bool is_answered(HttpClient& client, const lab::Payload& file) const {
    return lab::sha256_of_bytes(client.receive().body) == file.sha256;
  }

  TestLab lab;
  lab::Payload small, large;
  lab::ProcessId stopped;
  std::optional<HttpClient> waiting, unopened, unconfirmed, moved, relayed;
};

/// All but a client that waited at, or was relayed by, a dispatcher that has died.
void check_all_answered(Stages& stages) {
  CHECK(stages.is_answered(*stages.unconfirmed, stages.small));
  CHECK(stages.is_answered(*stages.unopened, stages.small));
  CHECK(stages.is_answered(*stages.moved, stages.large));
}

void check_undisturbed(Stages& stages) {
  stages.waiting->send("\r\n");
  CHECK(stages.is_answered(*stages.waiting, stages.small));
  check_all_answered(stages);
  CHECK(stages.is_answered(*stages.relayed, stages.large));
}

}  // namespace

TEST_CASE("crash matrix: the dispatcher") {
  Stages stages(GENERATE(config::Datapath::kTc, config::Datapath::kXdp));
  if (skipped(stages.lab)) return;
  stages.set_up();
  INFO(stages.lab.logs());
  kill_role(stages.lab, "dispatcher1");
  CHECK(stages.waiting->closed_within(10s));
  CHECK(stages.relayed->closed_within(10s));
  stages.go_on();
  check_all_answered(stages);
  stages.lab.restart_role("dispatcher1");
  HttpClient next(stages.lab.netns("client1"), vip(false));
  next.send(get("/server1/1k"));
  CHECK(stages.is_answered(next, stages.small));
}

TEST_CASE("crash matrix: the agent") {
  Stages stages(GENERATE(config::Datapath::kTc, config::Datapath::kXdp));
  if (skipped(stages.lab)) return;
  stages.set_up();
  INFO(stages.lab.logs());
  kill_process(stages.stopped);
  stages.lab.restart_role("server2");
  check_undisturbed(stages);
}

TEST_CASE("crash matrix: switch run") {
  Stages stages(GENERATE(config::Datapath::kTc, config::Datapath::kXdp));
  if (skipped(stages.lab)) return;
  stages.set_up();
  INFO(stages.lab.logs());
  kill_role(stages.lab, "switch1");
  stages.go_on();
  stages.lab.restart_role("switch1");
  check_undisturbed(stages);
}

TEST_CASE("crash matrix: the flow table") {
  Stages stages(GENERATE(config::Datapath::kTc, config::Datapath::kXdp));
  if (skipped(stages.lab)) return;
  stages.set_up();
  INFO(stages.lab.logs());
  kill_role(stages.lab, "switch1");
  const Output down = run_in(*stages.lab, "switch1", {program(), "switch", "down"});
  REQUIRE(down.code == 0);
  stages.lab.restart_role("switch1");
  stages.go_on();
  check_undisturbed(stages);
}
