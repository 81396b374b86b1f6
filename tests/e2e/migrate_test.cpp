// SPDX-License-Identifier: MIT
// Programs that give their connections away in the middle of an answer.
#include <signal.h>
#include <sys/socket.h>

#include <thread>

#include "catch.hpp"
#include "e2e/exec_support.hpp"
#include "e2e/migrate_support.hpp"
#include "lab/impairment.hpp"

using namespace tcpmig;
using namespace tcpmig::e2e;

namespace {

constexpr std::uint64_t kMegabyte = 1U << 20;

std::string down(std::uint64_t size, const std::string& more) {
  return "/1/down?size=" + std::to_string(size) + "&" + more;
}

/// What `roaming` makes of an upload of these bytes.
std::uint64_t sum_of(const std::string& body) {
  std::uint64_t sum = 0;
  for (const char byte : body) sum = sum * 31 + static_cast<unsigned char>(byte);
  return sum;
}

bool contains(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

}  // namespace

TEST_CASE("migrate: half of an answer of 100 MB comes from another server, with a blob of 1 MB") {
  const auto datapath = GENERATE(config::Datapath::kTc, config::Datapath::kXdp);
  RoamingLab roaming({.servers = 2, .datapath = datapath});
  for (const bool ipv6 : {false, true}) {
    HttpClient client = roaming.ask(down(100 * kMegabyte, "moves=1&to=server2&blob=1048576"), ipv6);
    const std::string wrong = read_answer(client, 100 * kMegabyte);
    INFO(roaming.output(1) << roaming.output(2) << roaming.lab().logs());
    CHECK(wrong == "");
  }
  CHECK(lab::wait_until(5s, [&] { return roaming.counter(1, "migrated") == 2; }));
  CHECK(lab::wait_until(5s, [&] { return roaming.counter(2, "whole_taken") == 2; }));
  CHECK(lab::wait_until(5s, [&] { return roaming.counter(1, "live") == 0; }));
}

TEST_CASE("migrate: one answer moves fifty times, back and forth") {
  RoamingLab roaming({.servers = 2});
  for (const bool ipv6 : {false, true}) {
    HttpClient client =
        roaming.ask(down(50 * kMegabyte, "moves=50&to=server2&to=server1&blob=5000"), ipv6);
    const std::string wrong = read_answer(client, 50 * kMegabyte);
    INFO(roaming.output(1) << roaming.output(2) << roaming.lab().logs());
    CHECK(wrong == "");
  }
  CHECK(lab::wait_until(5s, [&] { return roaming.counter(1, "migrated") == 50; }));
  CHECK(lab::wait_until(5s, [&] { return roaming.counter(2, "migrated") == 50; }));
  CHECK(roaming.counter(1, "migrate_returned") == 0);
}

TEST_CASE("migrate: over links that lose, double and reorder") {
  RoamingLab roaming(
      {.servers = 2, .impairment = lab::parse_impairment("loss=1%,duplicate=1%,reorder=1%")});
  for (const bool ipv6 : {false, true}) {
    HttpClient client =
        roaming.ask(down(16 * kMegabyte, "moves=10&to=server2&to=server1&blob=1048576"), ipv6);
    const std::string wrong = read_answer(client, 16 * kMegabyte);
    INFO(roaming.output(1) << roaming.output(2) << roaming.lab().logs());
    CHECK(wrong == "");
  }
  CHECK(lab::wait_until(5s, [&] { return roaming.counter(1, "migrated") == 10; }));
  CHECK(roaming.counter(1, "parts_asked") + roaming.counter(2, "parts_asked") > 0);
}

TEST_CASE("migrate: a client goes on sending while its connection moves") {
  RoamingLab roaming({.servers = 2});
  // A program that reads slowly may have up to 32 MB waiting (tcp_rmem of Linux 6.18), and a transfer carries 8.
  for (const char* server : {"server1", "server2"})
    set_in(roaming.lab(), server, "tcp_rmem", "4096 131072 4194304");
  const std::size_t size = 16 * kMegabyte;
  std::string body(size, '\0');
  for (std::size_t i = 0; i < size; ++i) body[i] = static_cast<char>(pattern(i));
  for (const bool ipv6 : {false, true}) {
    HttpClient client(roaming.lab().netns("client1"), vip(ipv6));
    client.send(
        "POST /1/up?moves=10&to=server2&to=server1 HTTP/1.1\r\nHost: x\r\nContent-Length: " +
        std::to_string(size) + "\r\n\r\n");
    client.send(body);
    const Response response = client.receive();
    INFO(roaming.output(1) << roaming.output(2) << roaming.lab().logs());
    CHECK(response.body == std::to_string(size) + " " + std::to_string(sum_of(body)) + " server1");
  }
  INFO(roaming.output(1) << roaming.output(2));
  CHECK(lab::wait_until(5s, [&] { return roaming.counter(1, "migrated") == 10; }));
}

TEST_CASE("migrate: a client that has closed its direction gets the rest") {
  RoamingLab roaming({.servers = 2});
  for (const bool ipv6 : {false, true}) {
    HttpClient client = roaming.ask(down(8 * kMegabyte, "moves=4&to=server2&to=server1"), ipv6);
    client.half_close();
    const std::string wrong = read_answer(client, 8 * kMegabyte);
    INFO(roaming.output(1) << roaming.output(2) << roaming.lab().logs());
    CHECK(wrong == "");
  }
  CHECK(lab::wait_until(5s, [&] { return roaming.counter(1, "migrated") == 4; }));
}

TEST_CASE("migrate: what is refused goes on where it is") {
  RoamingLab roaming({.servers = 3}, 1);
  const auto refused = [&](const std::string& more, const std::string& reason) {
    HttpClient client = roaming.ask(down(2 * kMegabyte, "moves=1&" + more));
    CHECK(read_answer(client, 2 * kMegabyte) == "");
    INFO(roaming.output(1));
    CHECK(contains(roaming.output(1), reason));
  };
  refused("to=nowhere", "there is no node nowhere");
  refused("to=server1", "server1 is this node itself");
  refused("to=server3", "server3 has no `handoff` in the pools of service");
  refused("to=dispatcher1", "dispatcher1 is no server of service");
  refused("to=server2&blob=1048577", "the blob is larger than 1 MB");
  CHECK(lab::wait_until(5s, [&] { return roaming.counter(1, "migrate_no_target") == 4; }));
  CHECK(roaming.counter(1, "migrated") == 0);

  const Output probe = run_in(*roaming.lab(), "server1",
                              {program_file("roaming"), "probe", roaming.agent(1), "server2"});
  INFO(probe.out);
  CHECK(contains(probe.out, "unix: " + std::to_string(EPROTOTYPE) + " kept"));
  CHECK(contains(probe.out, "listener: " + std::to_string(ENOTCONN) + " kept"));
  CHECK(contains(probe.out, "stranger: " + std::to_string(ENOTCONN) + " kept"));
  CHECK(contains(probe.out, "mptcp: " + std::to_string(EPROTOTYPE) + " kept"));
  CHECK(contains(probe.out, "no agent: " + std::to_string(ENOENT) + " kept"));
  CHECK(lab::wait_until(5s, [&] { return roaming.counter(1, "migrate_not_tcp") == 2; }));
  CHECK(lab::wait_until(5s, [&] { return roaming.counter(1, "migrate_not_ours") == 2; }));
}

TEST_CASE("migrate: two at once: one moves, the other hears so") {
  RoamingLab roaming({.servers = 2});
  for (int i = 0; i < 10; ++i) {
    HttpClient client = roaming.ask(down(kMegabyte, "moves=1&to=server2&twice=1"), i % 2 != 0);
    CHECK(read_answer(client, kMegabyte) == "");
  }
  INFO(roaming.output(1));
  CHECK(lab::wait_until(5s, [&] { return roaming.counter(1, "migrated") == 10; }));
  CHECK(lab::wait_until(5s, [&] { return roaming.counter(2, "whole_taken") == 10; }));
}
