// SPDX-License-Identifier: MIT
// Connections that are given away while something dies.
#include <signal.h>

#include <thread>

#include "catch.hpp"
#include "e2e/migrate_support.hpp"

using namespace tcpmig;
using namespace tcpmig::e2e;

namespace {

constexpr std::uint64_t kMegabyte = 1U << 20;
constexpr std::uint64_t kSmall = 1U << 16;  ///< goes out although nobody reads

std::string down(std::uint64_t size, const std::string& more) {
  return "/1/down?size=" + std::to_string(size) + "&" + more;
}

/// Reads it on a thread of its own.
class Reader {
 public:
  Reader(RoamingLab& roaming, const std::string& path, std::uint64_t size, bool ipv6 = false)
      : client_(roaming.ask(path, ipv6)),
        thread_([this, size] { wrong_ = read_answer(client_, size); }) {}
  ~Reader() {
    if (thread_.joinable()) thread_.join();
  }
  Reader(const Reader&) = delete;
  Reader& operator=(const Reader&) = delete;
  std::string wrong() {
    thread_.join();
    return wrong_;
  }

 private:
  HttpClient client_;
  std::string wrong_ = "not read";
  std::thread thread_;
};

/// Kills an agent at some moment while connections move: server1 is giving one away just then.
void kill_while_moving(RoamingLab& roaming, unsigned server, int round) {
  REQUIRE(lab::wait_until(20s, [&] { return roaming.counter(1, "under_way") > 0; }));
  std::this_thread::sleep_for(std::chrono::microseconds(700 * round));
  const std::string node = "server" + std::to_string(server);
  REQUIRE(::kill(roaming.lab().role_pid(node), SIGKILL) == 0);
  std::this_thread::sleep_for(std::chrono::milliseconds(round * 20));
  roaming.lab().restart_role(node);
}

}  // namespace

TEST_CASE("migrate: a target whose program is stopped or has ended gives the connection back") {
  RoamingLab roaming({.servers = 2});
  REQUIRE(::kill(-roaming.pid(2), SIGSTOP) == 0);
  {
    HttpClient client = roaming.ask(down(4 * kMegabyte, "moves=1&to=server2"));
    CHECK(read_answer(client, 4 * kMegabyte) == "");
  }
  REQUIRE(::kill(-roaming.pid(2), SIGCONT) == 0);
  roaming.stop(2, SIGKILL);
  {
    HttpClient client = roaming.ask(down(4 * kMegabyte, "moves=2&to=server2&to=server2"), true);
    CHECK(read_answer(client, 4 * kMegabyte) == "");
  }
  INFO(roaming.output(1) << roaming.lab().logs());
  CHECK(lab::wait_until(5s, [&] { return roaming.counter(1, "migrate_returned") == 3; }));
  roaming.start(2);
  HttpClient client = roaming.ask(down(4 * kMegabyte, "moves=3&to=server2&to=server1"));
  CHECK(read_answer(client, 4 * kMegabyte) == "");
  CHECK(lab::wait_until(5s, [&] { return roaming.counter(1, "migrated") == 2; }));
}

TEST_CASE("migrate: the agent of the source is killed at any moment") {
  RoamingLab roaming({.servers = 2});
  std::uint64_t recovered = 0;  // a run counts its own
  // A move is quick, and may be over when the signal comes: until one was caught in the midst.
  for (int round = 0; round < 6 || (recovered == 0 && round < 60); ++round) {
    Reader reader(roaming, down(64 * kMegabyte, "moves=60&to=server2&to=server1&blob=300000"),
                  64 * kMegabyte, round % 2 != 0);
    kill_while_moving(roaming, 1, round);
    const std::string wrong = reader.wrong();
    INFO(round << roaming.output(1) << roaming.output(2) << roaming.lab().logs());
    CHECK(wrong == "");
    recovered += roaming.counter(1, "migrate_recovered");
  }
  CHECK(recovered > 0);
}

TEST_CASE("migrate: the agent of the target is killed at any moment") {
  RoamingLab roaming({.servers = 2});
  for (int round = 0; round < 6; ++round) {
    Reader reader(roaming, down(64 * kMegabyte, "moves=60&to=server2&to=server1&blob=300000"),
                  64 * kMegabyte, round % 2 != 0);
    kill_while_moving(roaming, 2, round);
    const std::string wrong = reader.wrong();
    INFO(round << roaming.output(1) << roaming.output(2) << roaming.lab().logs());
    CHECK(wrong == "");
  }
}

TEST_CASE("migrate: the next agent gives a frozen connection back to its program") {
  RoamingLab roaming({.servers = 2});
  REQUIRE(::kill(-roaming.pid(2), SIGSTOP) == 0);
  Reader reader(roaming, down(4 * kMegabyte, "moves=1&to=server2"), 4 * kMegabyte);
  // frozen, and offered; the target waits for its program
  REQUIRE(lab::wait_until(10s, [&] { return roaming.counter(1, "under_way") == 1; }));
  REQUIRE(::kill(roaming.lab().role_pid("server1"), SIGKILL) == 0);
  roaming.lab().restart_role("server1");
  const std::string wrong = reader.wrong();
  INFO(roaming.output(1) << roaming.lab().logs());
  CHECK(wrong == "");
  CHECK(roaming.output(1).find("the agent was ended in the middle") != std::string::npos);
  CHECK(lab::wait_until(5s, [&] { return roaming.counter(1, "migrate_recovered") == 1; }));
  CHECK(lab::wait_until(5s, [&] { return roaming.counter(1, "migrate_returned") == 1; }));
  REQUIRE(::kill(-roaming.pid(2), SIGCONT) == 0);
}

TEST_CASE("migrate: the program of the target is killed at any moment: its clients get an end") {
  RoamingLab roaming({.servers = 2});
  for (int round = 0; round < 4; ++round) {
    Reader reader(roaming, down(64 * kMegabyte, "moves=60&to=server2&to=server1"), 64 * kMegabyte);
    std::this_thread::sleep_for(std::chrono::milliseconds(100 + 29 * round));
    roaming.stop(2, SIGKILL);
    const std::string wrong = reader.wrong();  // whole, or ended: never silent, never wrong
    INFO(round << roaming.output(1) << roaming.output(2) << roaming.lab().logs());
    CHECK(wrong.find("is wrong") == std::string::npos);
    CHECK(wrong.find("Resource temporarily unavailable") == std::string::npos);
    roaming.start(2);
  }
}

TEST_CASE("migrate: the program of the source is killed while its connection moves") {
  RoamingLab roaming({.servers = 2});
  REQUIRE(::kill(-roaming.pid(2), SIGSTOP) == 0);
  HttpClient client = roaming.ask(down(kSmall, "moves=1&to=server2"));
  REQUIRE(lab::wait_until(10s, [&] { return roaming.counter(1, "under_way") == 1; }));
  roaming.stop(1, SIGKILL);
  SECTION("the target takes it all the same") {
    REQUIRE(::kill(-roaming.pid(2), SIGCONT) == 0);
    CHECK(read_answer(client, kSmall) == "");
    CHECK(lab::wait_until(5s, [&] { return roaming.counter(1, "migrated") == 1; }));
  }
  SECTION("the target does not: the client gets an end") {
    CHECK(client.closed_within(20s));
    CHECK(lab::wait_until(5s, [&] { return roaming.counter(1, "migrate_returned") == 1; }));
    REQUIRE(::kill(-roaming.pid(2), SIGCONT) == 0);
  }
  SECTION("the agent, too: the client gets an end from the next one") {
    REQUIRE(::kill(roaming.lab().role_pid("server1"), SIGKILL) == 0);
    const pid_t other = roaming.lab().role_pid("server2");
    REQUIRE(::kill(other, SIGSTOP) == 0);
    roaming.lab().restart_role("server1");
    REQUIRE(::kill(other, SIGCONT) == 0);
    CHECK(client.closed_within(20s));
    REQUIRE(::kill(-roaming.pid(2), SIGCONT) == 0);
  }
}
