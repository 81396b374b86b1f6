// SPDX-License-Identifier: MIT
// Whoever dies, and wherever its connection stands: the client gets its answer, or a proper end.
// docs/reliability.md shows what is expected here as a table.
#include <poll.h>

#include <deque>
#include <filesystem>

#include "catch.hpp"
#include "e2e/outage.hpp"
#include "e2e/traffic.hpp"

using namespace tcpmig;
using namespace tcpmig::e2e;

namespace {

/// A relayed connection beside the moved ones, and a server that answers POST. Long enough for a restart on a busy machine: what a POST
/// has come to, only the agent can say.
const char* const kMore = R"(
[[pool]]
name = "relayed"
mode = "relay"
servers = [{ node = "server1", port = 80 }]
[[service.route]]
prefix = "/relayed"
pool = "relayed"
[[pool]]
name = "posts"
servers = [{ node = "server2", port = 8080 }]
[[service.route]]
prefix = "/posts"
pool = "posts"
[timeouts]
head = "60s"
closing = "2s"
scan = "500ms"
transfer = "10s"
)";

bool readable(const HttpClient& client) {
  pollfd wanted{client.fd(), POLLIN, 0};
  return ::poll(&wanted, 1, 5'000) == 1;
}

/// One client at each stage, of one family.
struct Clients {
  Clients(const TestLab& lab, bool ipv6)
      : of(ipv6 ? "6" : "4"),
        waiting(lab.netns("client1"), vip(ipv6)),
        unopened(lab.netns("client1"), vip(ipv6)),
        unopened_post(lab.netns("client1"), vip(ipv6)),
        unconfirmed(lab.netns("client1"), vip(ipv6)),
        unconfirmed_post(lab.netns("client1"), vip(ipv6)),
        moved(lab.netns("client1"), vip(ipv6)),
        relayed(lab.netns("client1"), vip(ipv6)) {}
  static constexpr unsigned kMoved = 5;

  [[nodiscard]] std::string path(const std::string& stage) const { return "/posts/" + stage + of; }

  std::string of;
  HttpClient waiting, unopened, unopened_post, unconfirmed, unconfirmed_post, moved, relayed;
};

/// The agent of server2 is stopped: what goes there is not confirmed, and where it comes in several parts not opened.
struct Stages {
  explicit Stages(config::Datapath datapath)
      : lab({.servers = 2, .datapath = datapath}, pool_per_server(2, kMore)) {}

  void set_up() {
    small = lab.add_file("1k", 1024);
    large = lab.add_file("32m", 32 << 20);
    std::filesystem::create_directory_symlink(".", lab.documents() / "relayed");
    for (const std::string node : {"server1", "server2"})
      lab.start_server(lab::ServerKind::kNginx, node);
    posts = &lab.start_server(lab::ServerKind::kNode, "server2", 8080);
    for (const bool ipv6 : {false, true}) families.emplace_back(lab, ipv6);
    for (Clients& clients : families) {
      clients.moved.send(get("/server1/32m"));
      clients.relayed.send(get("/relayed/32m"));
      REQUIRE(readable(clients.moved));
      REQUIRE(readable(clients.relayed));
      clients.waiting.send("GET /server1/1k HTTP/1.1\r\nHost: x\r\n");
    }
    stopped.emplace(lab, "server2");
    for (Clients& clients : families) {
      clients.unconfirmed.send(get("/server2/1k"));
      clients.unconfirmed_post.send(post(clients.path("unconfirmed"), "unconfirmed"));
      clients.unopened.send(get("/server2/1k", long_head()));
      clients.unopened_post.send(post(clients.path("unopened"), "unopened", long_head()));
    }
    REQUIRE(lab::wait_until(5s, [&] {
      return lab::role_number(*lab, "switch1", "committed") == families.size() * Clients::kMoved;
    }));
  }

  [[nodiscard]] static bool is_answered(HttpClient& client, const lab::Payload& file) {
    return lab::sha256_of_bytes(client.receive().body) == file.sha256;
  }
  /// With the answer of the application, which was asked once.
  [[nodiscard]] bool is_posted(HttpClient& client, const Clients& clients,
                               const std::string& stage) const {
    if (client.receive().body != lab::sha256_of_bytes(stage) + "\n") return false;
    std::size_t runs = 0;
    for (const lab::LogEntry& entry : posts->log()) runs += entry.path == clients.path(stage);
    return runs == 1;
  }

  TestLab lab;
  lab::Payload small, large;
  const lab::StockServer* posts = nullptr;
  std::optional<StoppedRole> stopped;
  std::deque<Clients> families;
};

void check_transfers(Stages& stages) {
  for (Clients& clients : stages.families) {
    INFO("IPv" << clients.of);
    CHECK(stages.is_answered(clients.unconfirmed, stages.small));
    CHECK(stages.is_posted(clients.unconfirmed_post, clients, "unconfirmed"));
    CHECK(stages.is_answered(clients.unopened, stages.small));
    CHECK(stages.is_posted(clients.unopened_post, clients, "unopened"));
  }
}

void check_moved(Stages& stages) {
  for (Clients& clients : stages.families) {
    INFO("IPv" << clients.of);
    CHECK(stages.is_answered(clients.moved, stages.large));
  }
}

/// Those of which the dispatcher is an end.
void check_at_dispatcher(Stages& stages) {
  for (Clients& clients : stages.families) {
    INFO("IPv" << clients.of);
    clients.waiting.send("\r\n");
    CHECK(stages.is_answered(clients.waiting, stages.small));
    CHECK(stages.is_answered(clients.relayed, stages.large));
  }
}

void check_undisturbed(Stages& stages) {
  check_transfers(stages);
  check_moved(stages);
  check_at_dispatcher(stages);
}

}  // namespace

TEST_CASE("crash matrix: the dispatcher") {
  Stages stages(GENERATE(config::Datapath::kTc, config::Datapath::kXdp));
  if (skipped(stages.lab)) return;
  stages.set_up();
  INFO(stages.lab.logs());
  kill_role(stages.lab, "dispatcher1");
  for (Clients& clients : stages.families) {
    INFO("IPv" << clients.of);
    CHECK(clients.waiting.closed_within(10s));
    CHECK(clients.relayed.closed_within(10s));
  }
  stages.stopped->go_on();
  check_transfers(stages);
  check_moved(stages);
  stages.lab.restart_role("dispatcher1");
  for (const bool ipv6 : {false, true}) {
    HttpClient next(stages.lab.netns("client1"), vip(ipv6));
    next.send(get("/server1/1k"));
    CHECK(stages.is_answered(next, stages.small));
  }
}

/// Of both servers: transfers are under way to one, the other has what was moved and what is relayed.
TEST_CASE("crash matrix: the agent") {
  Stages stages(GENERATE(config::Datapath::kTc, config::Datapath::kXdp));
  if (skipped(stages.lab)) return;
  stages.set_up();
  INFO(stages.lab.logs());
  stages.stopped->kill();
  kill_role(stages.lab, "server1");
  // one download of each kind while there is no agent, the other ones when there is one again
  CHECK(stages.is_answered(stages.families.front().moved, stages.large));
  CHECK(stages.is_answered(stages.families.front().relayed, stages.large));
  for (const std::string node : {"server2", "server1"}) stages.lab.restart_role(node);
  check_transfers(stages);
  CHECK(stages.is_answered(stages.families.back().moved, stages.large));
  CHECK(stages.is_answered(stages.families.back().relayed, stages.large));
  for (Clients& clients : stages.families) {
    clients.waiting.send("\r\n");
    CHECK(stages.is_answered(clients.waiting, stages.small));
  }
}

TEST_CASE("crash matrix: switch run") {
  Stages stages(GENERATE(config::Datapath::kTc, config::Datapath::kXdp));
  if (skipped(stages.lab)) return;
  stages.set_up();
  INFO(stages.lab.logs());
  kill_role(stages.lab, "switch1");
  stages.stopped->go_on();
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
  stages.stopped->go_on();
  check_undisturbed(stages);
}
