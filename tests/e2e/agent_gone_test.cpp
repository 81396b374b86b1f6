// SPDX-License-Identifier: MIT
// An agent that is stopped, or killed and never comes again, while transfers wait for it: each client gets an end, in bounded time.
#include "catch.hpp"
#include "e2e/outage.hpp"
#include "e2e/traffic.hpp"

using namespace tcpmig;
using namespace tcpmig::e2e;

namespace {

constexpr std::chrono::seconds kBound{30};  // the machine may be busy
const char* const kTimes =
    "[timeouts]\nhead = \"60s\"\nhealth = \"1s\"\nclosing = \"2s\"\nscan = \"500ms\"\ntransfer = "
    "\"1s\"\n";

std::string body_of(const std::string& text) { return lab::sha256_of_bytes(text) + "\n"; }

std::size_t runs(const TestLab& lab, const std::string& path) {
  std::size_t count = 0;
  for (const lab::LogEntry& entry : lab.server("server1").log()) count += entry.path == path;
  return count;
}

/// A client whose request, all but its last line, is at the dispatcher.
class Waiting {
 public:
  Waiting(const TestLab& lab, bool ipv6, const std::string& request)
      : client(lab.netns("client1"), vip(ipv6)) {
    const auto rest = request.find("\r\n\r\n") + 2;
    client.send(request.substr(0, rest));
    rest_ = request.substr(rest);
  }
  void finish() { client.send(rest_); }
  HttpClient client;

 private:
  std::string rest_;
};

/// Of one family. What is `long` comes in several parts, which only an agent can open.
struct Clients {
  Clients(const TestLab& lab, bool ipv6)
      : of(ipv6 ? "6" : "4"),
        long_get(lab, ipv6, get("/server1/1k", long_head())),
        long_post(lab, ipv6, post("/server1/long" + of, "long", long_head())),
        short_get(lab, ipv6, get("/server1/1k")),
        short_post(lab, ipv6, post("/server1/short" + of, "short")) {}
  static constexpr unsigned kMoved = 4;
  void finish() {
    for (Waiting* waiting : {&long_get, &long_post, &short_get, &short_post}) waiting->finish();
  }

  std::string of;
  Waiting long_get, long_post, short_get, short_post;
};

}  // namespace

TEST_CASE("the agent never returns: a GET is relayed, a POST answered with 504, else reset") {
  const bool dispatcher_dies = GENERATE(false, true);
  INFO((dispatcher_dies ? "the dispatcher dies as well" : "the dispatcher lives"));
  TestLab lab({.servers = 1}, pool_per_server(1, kTimes));
  if (skipped(lab) || skipped_in_repair("without its agent no server gets a connection")) return;
  const lab::Payload small = lab.add_file("1k", 1024);
  lab::Payload large = lab.add_file("32m", 32 << 20);
  large.name = "server1/32m";
  lab.start_server(lab::ServerKind::kNode, "server1");
  SlowDownload during4(lab, large), during6(lab, large, true);
  REQUIRE(lab::wait_until(10s, [&] { return during4.begun() && during6.begun(); }));
  Clients v4(lab, false), v6(lab, true);
  REQUIRE(lab::wait_until(10s, [&] { return of_dispatcher(lab, "waiting") == 2 * v4.kMoved; }));
  const auto before = number_of(lab, "switch1", "committed");
  StoppedRole agent(lab, "server1");
  for (Clients* clients : {&v4, &v6}) clients->finish();
  REQUIRE(lab::wait_until(
      10s, [&] { return number_of(lab, "switch1", "committed") == before + 2 * v4.kMoved; }));
  agent.kill();
  if (dispatcher_dies) kill_role(lab, "dispatcher1");
  INFO(lab.logs());

  const auto begun = std::chrono::steady_clock::now();
  for (Clients* clients : {&v4, &v6}) {
    INFO("IPv" << clients->of);
    // opened by the kernel: nobody is needed
    CHECK(lab::sha256_of_bytes(clients->short_get.client.receive().body) == small.sha256);
    CHECK(clients->short_post.client.receive().body == body_of("short"));
    CHECK(runs(lab, "/server1/short" + clients->of) == 1);
    if (dispatcher_dies) {
      CHECK(clients->long_get.client.closed_within(kBound));
      CHECK(clients->long_post.client.closed_within(kBound));
    } else {
      CHECK(lab::sha256_of_bytes(clients->long_get.client.receive().body) == small.sha256);
      CHECK(clients->long_post.client.receive().status == 504);
      CHECK(clients->long_post.client.closed_within(kBound));
    }
    CHECK(runs(lab, "/server1/long" + clients->of) == 0);
  }
  CHECK(std::chrono::steady_clock::now() - begun < kBound);
  CHECK(number_of(lab, "switch1", "reaped_transfer") == (dispatcher_dies ? 4 : 0));
  if (!dispatcher_dies) {
    CHECK(own_answers(lab, "504") == 2);
    CHECK(lab::wait_until(kBound, [&] { return of_dispatcher(lab, "in_transfer") == 0; }));
  }
  CHECK(during4.complete());
  CHECK(during6.complete());
}

TEST_CASE("a POST whose server never answers its transfer gets one 504, which is counted") {
  TestLab lab({.servers = 1}, pool_per_server(1, kTimes));
  if (skipped(lab)) return;
  lab.start_server(lab::ServerKind::kNode, "server1");
  std::uint64_t answered = 0;
  for (const bool ipv6 : {false, true}) {
    const std::string path = std::string("/server1/post") + (ipv6 ? "6" : "4");
    Waiting asking(lab, ipv6, post(path, "once", long_head()));
    StoppedRole agent(lab, "server1");
    asking.finish();
    INFO((ipv6 ? "v6\n" : "v4\n") << lab.logs());
    CHECK(asking.client.receive().status == 504);
    CHECK(asking.client.receive_all().empty());  // one answer, and the end
    CHECK(own_answers(lab, "504") == ++answered);
    CHECK(of_dispatcher(lab, "silent_servers") == answered);
    // What reached the agent after all may run, once: that is what 504 says.
    agent.go_on();
    HttpClient next(lab.netns("client1"), vip(ipv6));
    next.send(post(path, "again"));
    CHECK(next.receive().body == body_of("again"));
    CHECK(runs(lab, path) <= 2);
  }
  const auto answers = status_of(lab, "dispatcher1").at("answers");
  CHECK(answers.size() == 1);
  CHECK(number_of(lab, "switch1", "reaped_transfer") == 0);
}
