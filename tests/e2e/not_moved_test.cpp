// SPDX-License-Identifier: MIT
// Why a connection is not moved: reasons that need a kernel, or a dispatcher, in a certain state.
#include <iostream>

#include "catch.hpp"
#include "e2e/outage.hpp"

using namespace tcpmig;
using namespace tcpmig::e2e;

TEST_CASE("a client that has negotiated accurate ECN is relayed, by that name") {
  TestLab lab({.servers = 1}, pool_per_server(1));
  if (skipped(lab)) return;
  constexpr const char* kSetting = "/proc/sys/net/ipv4/tcp_ecn";
  for (const char* node : {"client1", "dispatcher1"})  // 3: asks for it, and accepts it
    if (run_in(*lab, node, {"sh", "-c", std::string("echo 3 >") + kSetting}).code != 0) {
      std::cout << "SKIPPED: this kernel has no accurate ECN\n";
      return;
    }
  const lab::Payload file = lab.add_file("1k", 1024);
  lab.start_server(lab::ServerKind::kNginx, "server1");
  const std::string reason = "the connection uses accurate ECN";
  for (const bool ipv6 : {false, true}) {
    INFO(lab.logs());
    HttpClient client(lab.netns("client1"), vip(ipv6));
    client.send(get("/server1/1k"));
    CHECK(lab::sha256_of_bytes(client.receive().body) == file.sha256);
  }
  const auto status = lab::role_status(*lab, "dispatcher1");
  CHECK(status.at("freeze_refused").value(reason, 0) == 2);
  CHECK(status.at("relayed").value(reason, 0) == 2);
  CHECK(lab::role_number(*lab, "switch1", "committed") == 0);
}

TEST_CASE("a request that comes to a dispatcher on its way down is answered with 503") {
  TestLab lab({.servers = 1}, pool_per_server(1, "[timeouts]\ntransfer = \"10s\"\n"));
  if (skipped(lab)) return;
  const lab::Payload file = lab.add_file("1k", 1024);
  lab.start_server(lab::ServerKind::kNginx, "server1");
  HttpClient waiting(lab.netns("client1"), vip(false)), moving(lab.netns("client1"), vip(true));
  waiting.send("GET /server1/1k HTTP/1.1\r\n");
  LostTransfers lost(lab, "dispatcher1");
  moving.send(get("/server1/1k"));
  REQUIRE(lab::wait_until(5s, [&] { return number_of(lab, "dispatcher1", "in_transfer") == 1; }));
  const auto dispatcher = process_of(lab, "dispatcher1");
  ::kill(dispatcher.pid, SIGTERM);
  INFO(lab.logs());
  REQUIRE(lab::wait_until(5s, [&] {
    try {  // nobody is accepted any more
      const HttpClient late(lab.netns("client1"), vip(false));
      return false;
    } catch (const std::exception&) {
      return true;
    }
  }));
  waiting.send("Host: lab\r\n\r\n");
  CHECK(waiting.receive().status == 503);
  lost.end();  // what was in a transfer is still carried to its end
  CHECK(lab::sha256_of_bytes(moving.receive().body) == file.sha256);
  CHECK(lab::wait_until(30s, [&] {
    lab::poll_exit(dispatcher.pid);
    return !lab::is_alive(dispatcher);
  }));
}
