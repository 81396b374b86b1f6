// SPDX-License-Identifier: MIT
// Never silence for ever: a dispatcher dies, hangs or leaves, a server loses a transfer. Every client
// that waits gets an end, new ones go where somebody lives, and what was moved goes on.
#include <arpa/inet.h>
#include <signal.h>
#include <sys/socket.h>

#include <nlohmann/json.hpp>

#include "catch.hpp"
#include "e2e/traffic.hpp"
#include "shared/switch_maps.h"
#include "switch/sweep.hpp"
#include "sys/bpf.hpp"
#include "sys/check.hpp"
#include "sys/netns.hpp"

using namespace tcpmig;
using namespace tcpmig::e2e;
using Clients = std::vector<std::unique_ptr<HttpClient>>;

namespace {

constexpr std::chrono::seconds kBound{30};  // the machine may be busy

std::string short_times(const std::string& transfer) {
  return pool_per_server(1,
                         "[timeouts]\nhealth = \"1s\"\nhead = \"120s\"\nclosing = \"2s\"\n"
                         "scan = \"500ms\"\ntransfer = \"" +
                             transfer + "\"\n");
}

sys::UniqueFd map(const TestLab& lab, const std::string& name) {
  return std::move(*sys::PinDirectory(lab->config().paths("switch1").pins("switch")).open(name));
}

abi::flow_key key_of(const HttpClient& client) {
  const sys::Endpoint local = client.local();
  const bool ipv4 = local.address.is_ipv4();
  abi::flow_key key{};
  key.client = local.address.raw();
  key.vip = vip(!ipv4).address.raw();
  key.client_port = htons(local.port);
  key.vip_port = htons(80);
  key.family = ipv4 ? abi::FAMILY_IPV4 : abi::FAMILY_IPV6;
  return key;
}

abi::affinity_value binding(const TestLab& lab, const HttpClient& client) {
  return sys::map_lookup<abi::affinity_value>(map(lab, "affinity").get(), key_of(client)).value();
}

/// Those of dispatcher 1 and of dispatcher 2, at least two of each.
struct Waiting {
  Clients of[3];
};
Waiting connect(const TestLab& lab) {
  Waiting waiting;
  for (int i = 0; i < 40 && (i < 8 || waiting.of[1].size() < 2 || waiting.of[2].size() < 2); ++i) {
    auto client = std::make_unique<HttpClient>(lab.netns("client1"), vip(i % 2 != 0));
    client->send("GET /server1/1k HTTP/1.1\r\n");
    std::uint16_t dispatcher = 0;
    REQUIRE(lab::wait_until(5s, [&] {
      const auto bound = binding(lab, *client);
      dispatcher = bound.dispatcher;
      return bound.acked == 1;
    }));
    waiting.of[dispatcher].push_back(std::move(client));
  }
  REQUIRE(waiting.of[1].size() >= 2);
  REQUIRE(waiting.of[2].size() >= 2);
  return waiting;
}

constexpr const char* kRestOfHead = "Host: lab\r\nConnection: close\r\n\r\n";

bool finishes(HttpClient& client, const lab::Payload& file) {
  client.send(kRestOfHead);
  return lab::sha256_of_bytes(client.receive().body) == file.sha256;
}

bool fetches(const TestLab& lab, const lab::Payload& file) {
  HttpClient client(lab.netns("client1"), vip(false));
  client.send("GET /server1/1k HTTP/1.1\r\n");
  return finishes(client, file);
}

/// Each ends, and all within the bound.
std::size_t ended(Clients& clients) {
  const auto deadline = std::chrono::steady_clock::now() + kBound;
  std::size_t count = 0;
  for (const auto& client : clients) {
    const auto left = std::chrono::duration_cast<std::chrono::milliseconds>(
        deadline - std::chrono::steady_clock::now());
    count += client->closed_within(std::max(left, 1ms)) ? 1 : 0;
  }
  return count;
}

std::string health(const TestLab& lab, const std::string& node) {
  const auto status = lab::role_status(*lab, "switch1");
  for (const auto& one : status.at("nodes"))
    if (one.at("name") == node) return one.at("health");
  return "";
}

std::uint64_t counter(const TestLab& lab, const std::string& name) {
  return lab::role_number(*lab, "switch1", name);
}

std::uint64_t in_transfer(const TestLab& lab, const std::string& dispatcher) {
  return lab::find_number(lab::role_status(*lab, dispatcher), "in_transfer").value_or(0);
}

void kill_now(pid_t pid) {
  const auto process = lab::identify(pid).value();
  ::kill(process.pid, SIGKILL);
  REQUIRE(lab::wait_until(5s, [&] {
    lab::poll_exit(process.pid);
    return !lab::is_alive(process);
  }));
}

/// Stops a process for a while.
class Stopped {
 public:
  explicit Stopped(pid_t pid) : pid_(pid) { ::kill(pid_, SIGSTOP); }
  ~Stopped() { go_on(); }
  Stopped(const Stopped&) = delete;
  Stopped& operator=(const Stopped&) = delete;
  void go_on() {
    if (pid_ > 0) ::kill(pid_, SIGCONT);
    pid_ = 0;
  }

 private:
  pid_t pid_;
};

}  // namespace

TEST_CASE(
    "a dispatcher hangs: its clients are reset, new ones go to the other, and it comes back") {
  TestLab lab({.servers = 1, .dispatchers = 2}, short_times("2s"));
  if (skipped(lab)) return;
  const lab::Payload large = lab.add_file("100m", 100 << 20), small = lab.add_file("1k", 1024);
  lab.start_server(lab::ServerKind::kNginx, "server1");
  HttpClient download(lab.netns("client1"), vip(false));
  download.send(get("/server1/100m", "Connection: close\r\n"));
  char byte = 0;
  REQUIRE(lab::wait_until(
      5s, [&] { return ::recv(download.fd(), &byte, 1, MSG_PEEK | MSG_DONTWAIT) == 1; }));
  Waiting waiting = connect(lab);
  CHECK(health(lab, "dispatcher1") == "alive");

  Stopped hung(lab.role_pid("dispatcher1"));
  INFO(lab.logs());
  CHECK(ended(waiting.of[1]) == waiting.of[1].size());
  CHECK(health(lab, "dispatcher1") == "dead");
  CHECK(counter(lab, "reset_dead_dispatcher") >= waiting.of[1].size());
  for (int i = 0; i < 10; ++i) CHECK(fetches(lab, small));
  for (const auto& client : waiting.of[2]) CHECK(finishes(*client, small));
  CHECK(lab::sha256_of_bytes(download.receive().body) == large.sha256);
  CHECK(lab::role_number(*lab, "switch1", "reaped_transfer") == 0);

  hung.go_on();
  CHECK(lab::wait_until(kBound, [&] { return health(lab, "dispatcher1") == "alive"; }));
  CHECK(lab::wait_until(kBound, [&] {  // it has its share again
    const HttpClient client(lab.netns("client1"), vip(false));
    return binding(lab, client).dispatcher == 1;
  }));
}

TEST_CASE("kill -9 of a dispatcher: clients frozen before their transfer was heard of are reset") {
  const bool restart = GENERATE(false, true);
  INFO((restart ? "started again" : "left dead"));
  TestLab lab({.servers = 1, .dispatchers = 2}, short_times("20s"));
  if (skipped(lab)) return;
  const lab::Payload small = lab.add_file("1k", 1024);
  lab.start_server(lab::ServerKind::kNginx, "server1");
  Waiting waiting = connect(lab);
  // What it sends of transfers is lost; its heartbeats, from the control port, are not.
  for (const std::string family : {"-4", "-6"})
    REQUIRE(run_in(*lab, "dispatcher1",
                   {"ip", family, "rule", "add", "pref", "1", "ipproto", "udp", "dport", "7420",
                    "sport", "10000-65534", "blackhole"})
                .code == 0);
  const pid_t pid = lab.role_pid("dispatcher1");
  for (const auto& client : waiting.of[1]) client->send(kRestOfHead);
  REQUIRE(lab::wait_until(10s,
                          [&] { return in_transfer(lab, "dispatcher1") == waiting.of[1].size(); }));
  // A client that repeats what it has sent, to whatever is there now, is reset by the kernel of its dispatcher's machine: these say no more.
  const auto client_speaks = [&](const std::string& verb) {
    for (const std::string family : {"-4", "-6"})
      REQUIRE(run_in(*lab, "client1",
                     {"ip", family, "rule", verb, "pref", "1", "ipproto", "tcp", "dport", "80",
                      "blackhole"})
                  .code == 0);
  };
  client_speaks("add");
  kill_now(pid);
  if (restart) lab.restart_role("dispatcher1");
  INFO(lab.logs());
  CHECK(ended(waiting.of[1]) == waiting.of[1].size());
  const std::string reason = restart ? "reset_restarted_dispatcher" : "reset_dead_dispatcher";
  CHECK(lab::wait_until(kBound, [&] { return counter(lab, reason) >= waiting.of[1].size(); }));
  client_speaks("del");
  for (const auto& client : waiting.of[2]) CHECK(finishes(*client, small));
}

TEST_CASE(
    "kill -9 of a dispatcher while the server's agent hangs: clients in a transfer are reset") {
  TestLab lab({.servers = 1, .dispatchers = 2}, short_times("2s"));
  if (skipped(lab)) return;
  const lab::Payload small = lab.add_file("1k", 1024);
  lab.start_server(lab::ServerKind::kNginx, "server1");
  Waiting waiting = connect(lab);
  const pid_t dispatcher = lab.role_pid("dispatcher1");
  Stopped agent(lab.role_pid("server1"));
  const std::string large_head = "X-Filler: " + std::string(3000, 'x') + "\r\n" + kRestOfHead;
  for (const auto& client : waiting.of[1]) client->send(large_head);
  REQUIRE(lab::wait_until(10s, [&] { return counter(lab, "committed") >= waiting.of[1].size(); }));
  kill_now(dispatcher);
  INFO(lab.logs());
  CHECK(ended(waiting.of[1]) == waiting.of[1].size());
  CHECK(counter(lab, "reaped_transfer") == waiting.of[1].size());
  for (const auto& client : waiting.of[2]) CHECK(finishes(*client, small));
  agent.go_on();
  CHECK(lab::wait_until(kBound, [&] { return fetches(lab, small); }));
}

TEST_CASE("a transfer whose server never opened it: the agent says so, the client is reset") {
  TestLab lab({.servers = 1, .dispatchers = 2}, short_times("1s"));
  if (skipped(lab)) return;
  Waiting waiting = connect(lab);
  HttpClient& client = *waiting.of[1].front();
  // As it is when the dispatcher dies and the COMMIT is lost behind the switch.
  abi::flow_value lost{};
  lost.owner.is.owner = 101;
  lost.owner.is.previous = 1;
  lost.owner.is.port = 80;
  lost.owner.is.generation = 1000;
  lost.committed_ns = lost.last_seen_ns = steering::monotonic_ns();
  lost.snd_nxt = lost.client_ack = binding(lab, client).client_ack;
  lost.service = 1;
  sys::map_update(map(lab, "flows").get(), key_of(client), lost);
  INFO(lab.logs());
  CHECK(client.closed_within(kBound));
  CHECK(counter(lab, "gone") == 1);
  CHECK(counter(lab, "reaped_transfer") == 1);
}

TEST_CASE("a server that thinks for long, and whose first ACK was lost, keeps its client") {
  TestLab lab({.servers = 1}, short_times("500ms"));
  if (skipped(lab) || skipped_in_repair("its server is the test itself, not under tcpmig exec"))
    return;
  sys::UniqueFd listener;
  {
    const sys::EnterNetns inside(lab.netns("server1"));
    listener =
        sys::UniqueFd(sys::check("socket", ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)));
    const auto [any, length] =
        sys::Endpoint{sys::Address::parse("0.0.0.0").value(), 80}.to_sockaddr();
    sys::check("bind", ::bind(listener.get(), reinterpret_cast<const sockaddr*>(&any), length));
    sys::check("listen", ::listen(listener.get(), 8));
  }
  HttpClient client(lab.netns("client1"), vip(false));
  client.send(get("/server1/x"));
  const sys::UniqueFd server(sys::check("accept", ::accept(listener.get(), nullptr, nullptr)));
  const sys::UniqueFd flows = map(lab, "flows");
  const auto flow = [&] { return sys::map_lookup<abi::flow_value>(flows.get(), key_of(client)); };
  REQUIRE(lab::wait_until(5s, [&] { return flow() && flow()->owner.is.spoke; }));
  abi::flow_value silent = flow().value();
  silent.owner.is.spoke = 0;
  sys::map_update(flows.get(), key_of(client), silent);
  INFO(lab.logs());
  CHECK(lab::wait_until(kBound, [&] { return flow()->owner.is.spoke; }));  // the agent was asked
  CHECK_FALSE(client.closed_within(2s));                                   // four times the limit
  const std::string answer = "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nlate";
  CHECK(::send(server.get(), answer.data(), answer.size(), MSG_NOSIGNAL) ==
        static_cast<ssize_t>(answer.size()));
  CHECK(client.receive().body == "late");
  CHECK(counter(lab, "reaped_transfer") == 0);
}

TEST_CASE("a dispatcher is drained: nobody is turned away, its waiting clients get an end") {
  TestLab lab({.servers = 1, .dispatchers = 2}, short_times("2s"));
  if (skipped(lab)) return;
  const lab::Payload small = lab.add_file("1k", 1024);
  lab.start_server(lab::ServerKind::kNginx, "server1");
  Waiting waiting = connect(lab);
  const auto process = lab::identify(lab.role_pid("dispatcher1")).value();
  ::kill(process.pid, SIGTERM);
  do {
    CHECK(fetches(lab, small));
    lab::poll_exit(process.pid);
  } while (lab::is_alive(process));
  INFO(lab.logs());
  CHECK(ended(waiting.of[1]) == waiting.of[1].size());
  for (int i = 0; i < 10; ++i) CHECK(fetches(lab, small));
  for (const auto& client : waiting.of[2]) CHECK(finishes(*client, small));
}
