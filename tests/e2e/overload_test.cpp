// SPDX-License-Identifier: MIT
// More clients than a dispatcher can hand over: its accept queue never runs empty.
#include <linux/bpf.h>
#include <signal.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <thread>

#include "catch.hpp"
#include "e2e/support.hpp"
#include "sys/check.hpp"
#include "sys/ledger.hpp"
#include "sys/netns.hpp"
#include "sys/sock_diag.hpp"

using namespace tcpmig;
using namespace tcpmig::e2e;

namespace {

/// Clients that ask again as soon as they have their answer, each time by a new connection.
class Crowd {
 public:
  Crowd(const TestLab& lab, unsigned clients) {
    for (unsigned i = 0; i < clients; ++i)
      threads_.emplace_back([this, netns = lab.netns("client1"), ipv6 = i % 2 != 0] {
        for (const sys::EnterNetns inside(netns); !over_.load();) ask(vip(ipv6));
      });
  }
  ~Crowd() { end(); }
  Crowd(const Crowd&) = delete;
  Crowd& operator=(const Crowd&) = delete;

  void end() {
    over_.store(true);
    for (std::thread& thread : threads_) thread.join();
    threads_.clear();
  }
  [[nodiscard]] std::uint64_t answered() const { return answered_.load(); }
  [[nodiscard]] std::uint64_t failed() const { return failed_.load(); }

 private:
  void ask(const sys::Endpoint& to) {
    const auto [address, length] = to.to_sockaddr();
    const sys::UniqueFd fd(
        sys::check("socket", ::socket(address.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0)));
    const std::string request = get("/server1/1k", "Connection: close\r\n");
    std::array<char, 4'096> answer{};
    const bool sent =
        ::connect(fd.get(), reinterpret_cast<const sockaddr*>(&address), length) == 0 &&
        ::send(fd.get(), request.data(), request.size(), MSG_NOSIGNAL) > 0;
    const bool good = sent && ::recv(fd.get(), answer.data(), 12, MSG_WAITALL) == 12 &&
                      std::string_view(answer.data(), 12) == "HTTP/1.1 200";
    while (good && ::recv(fd.get(), answer.data(), answer.size(), 0) > 0) continue;
    ++(good ? answered_ : failed_);
  }
  std::atomic<bool> over_{false};
  std::atomic<std::uint64_t> answered_{0}, failed_{0};
  std::vector<std::thread> threads_;
};

/// Of the listeners of a node at port 80, the shortest: how long its queue may become.
std::uint32_t shortest_backlog(const std::string& netns) {
  const sys::EnterNetns inside(netns);
  std::uint32_t shortest = UINT32_MAX;
  sys::SockDiag().for_each(1U << BPF_TCP_LISTEN, [&](const sys::SocketInfo& socket) {
    if (socket.local.port == 80) shortest = std::min(shortest, socket.send_queue);
  });
  return shortest;
}

std::uint64_t count(const TestLab& lab, const std::string& name) {
  return lab::find_number(lab::role_status(*lab, "dispatcher1"), name).value_or(0);
}

}  // namespace

TEST_CASE("overload: a queue that never runs empty is kept short, and long again afterwards") {
  TestLab lab({.servers = 1}, pool_per_server(1));
  if (skipped(lab)) return;
  lab.add_file("1k", 1'024);
  lab.start_server(lab::ServerKind::kNginx, "server1");
  const auto longest = static_cast<std::uint32_t>([&] {
    const sys::EnterNetns inside(lab.netns("dispatcher1"));
    return std::min(65'535UL, std::stoul(sys::read_sysctl("net.core.somaxconn")));
  }());
  REQUIRE(shortest_backlog(lab.netns("dispatcher1")) == longest);
  Crowd crowd(lab, 64 * static_cast<unsigned>(count(lab, "workers")));  // one queue for each
  INFO(lab.logs());
  CHECK(lab::wait_until(60s, [&] { return count(lab, "accept_queue_shortened") > 0; }));
  CHECK(lab::wait_until(10s, [&] { return shortest_backlog(lab.netns("dispatcher1")) < longest; }));
  crowd.end();
  CHECK(crowd.answered() > 0);
  CHECK(crowd.failed() == 0);
  CHECK(
      lab::wait_until(10s, [&] { return shortest_backlog(lab.netns("dispatcher1")) == longest; }));
}

TEST_CASE(
    "overload: a COMMIT is repeated when its answer is late for that server, not always after "
    "timeouts.retry") {
  TestLab lab({.servers = 1}, pool_per_server(1));
  if (skipped(lab)) return;
  lab.add_file("1k", 1'024);
  lab.start_server(lab::ServerKind::kNginx, "server1");
  INFO(lab.logs());
  const pid_t agent = lab.role_pid("server1");
  const std::uint64_t requests = 8 * count(lab, "workers");
  for (std::uint64_t i = 0; i < requests; ++i) {
    REQUIRE(::kill(agent, SIGSTOP) == 0);  // the kernel resumes without it; only the answer is late
    HttpClient client(lab.netns("client1"), vip(false));
    client.send(get("/server1/1k", "Connection: close\r\n"));
    CHECK(client.receive().status == 200);
    std::this_thread::sleep_for(120ms);  // how late it is: more than twice timeouts.retry
    REQUIRE(::kill(agent, SIGCONT) == 0);
    REQUIRE(lab::wait_until(10s, [&] { return count(lab, "transferred") == i + 1; }));
  }
  CHECK(count(lab, "commits_repeated") >= 1);            // nobody knew
  CHECK(count(lab, "commits_repeated") < requests / 2);  // each event loop has learned, from one
}
