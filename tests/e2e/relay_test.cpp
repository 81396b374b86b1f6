// SPDX-License-Identifier: MIT
// What is not moved is relayed: by the pool's word, or because it cannot be moved.
#include <signal.h>
#include <sys/socket.h>

#include <algorithm>

#include "catch.hpp"
#include "e2e/listener.hpp"
#include "e2e/support.hpp"
#include "lab/plan.hpp"

using namespace tcpmig;
using namespace tcpmig::e2e;
using namespace std::string_literals;
using lab::ServerKind;

namespace {

std::string relay_pool(const std::string& more) {
  return "[[service]]\nname = \"web\"\nid = 1\nvip4 = \""s + lab::kVip4 + "\"\nvip6 = \"" +
         lab::kVip6 + "\"\n[[service.route]]\npool = \"web\"\n[[pool]]\nname = \"web\"\n" + more +
         "\n";
}

std::uint64_t relays(const TestLab& lab, const std::string& reason) {
  const auto status = lab::role_status(*lab, "dispatcher1");
  return lab::find_number(status.value("relayed", nlohmann::json::object()), reason).value_or(0);
}

}  // namespace

TEST_CASE("a pool whose connections are relayed: stock servers and clients, both families") {
  TestLab lab({.servers = 2},
              relay_pool("mode = \"relay\"\nservers = [{ node = \"server1\", port = 80 }, "
                         "{ node = \"server2\", port = 80 }]"));
  const lab::Payload small = lab.add_file("1k", 1024), large = lab.add_file("20m", 20 << 20);
  lab.start_server(ServerKind::kNginx, "server1");
  lab.start_server(ServerKind::kNode, "server2");
  for (int i = 0; i < 8; ++i)
    for (const lab::Payload& file : {small, large}) {
      INFO(lab.logs());
      const std::string path = (lab.directory() / "got").string();
      const Output output = run_in(
          *lab, "client1",
          {"curl", "-sS", "--fail", "-m", "40", "-o", path, url("/" + file.name, i % 2 != 0)});
      INFO(output.error);
      CHECK(output.code == 0);
      CHECK(lab::sha256_of(path) == file.sha256);
    }
  CHECK(relays(lab, "pool mode") == 16);
  CHECK(lab::wait_until(3s, [&] {
    return lab::find_number(lab::role_status(*lab, "dispatcher1"), "relaying") == 0U;
  }));
  lab.stop_server("server1");
  lab.stop_server("server2");
  HttpClient client(lab.netns("client1"), vip(false));
  client.send(get("/1k"));
  CHECK(client.receive().status == 503);
}

TEST_CASE("a relayed connection keeps half-close, back-pressure and resets, and names its client") {
  TestLab lab({.servers = 1}, relay_pool("mode = \"relay\"\nclient_address = \"proxy_v2\"\n"
                                         "servers = [{ node = \"server1\", port = 80 }]"));
  const Listener listener(lab.netns("server1"), 80);
  HttpClient client(lab.netns("client1"), vip(false));
  const std::string request = get("/x");
  client.send(request);
  sys::UniqueFd server = listener.accept();
  CHECK(read_until(server, "QUIT\n") == "\r\n\r\n\0\r\nQUIT\n"s);
  CHECK(read_until(server, request).ends_with(request));

  SECTION("the client's end is passed on, the answer still comes") {
    client.send("tail");
    client.half_close();
    CHECK(read_until(server, "never") == "tail");
    write_all(server, "HTTP/1.1 200 OK\r\n\r\nanswer");
    server.reset();
    CHECK(client.receive_all() == "HTTP/1.1 200 OK\r\n\r\nanswer");
  }
  SECTION("a server that does not read stops the client") {
    const timeval limit{0, 300'000};
    ::setsockopt(client.fd(), SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit);
    const std::string block(1 << 20, 'x');
    std::size_t sent = 0;
    for (int i = 0; i < 200; ++i) {
      const ssize_t n = ::send(client.fd(), block.data(), block.size(), MSG_NOSIGNAL);
      if (n < 0) break;
      sent += static_cast<std::size_t>(n);
    }
    CHECK(sent < (100 << 20));
  }
  SECTION("a client that does not read stops the server") {
    const timeval limit{0, 300'000};
    ::setsockopt(server.get(), SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit);
    const std::string block(1 << 20, 'x');
    std::size_t sent = 0;
    for (int i = 0; i < 200; ++i) {
      const ssize_t n = ::send(server.get(), block.data(), block.size(), MSG_NOSIGNAL);
      if (n < 0) break;
      sent += static_cast<std::size_t>(n);
    }
    CHECK(sent < (100 << 20));
    server.reset();  // what was taken comes, when the client reads on
    CHECK(client.receive_all().size() == sent);
  }
  SECTION("a reset is passed on, either way") {
    client.reset();
    char byte = 0;
    CHECK(::recv(server.get(), &byte, 1, 0) == -1);
    CHECK(errno == ECONNRESET);
  }
  SECTION("of the server") {
    const linger hard{1, 0};
    ::setsockopt(server.get(), SOL_SOCKET, SO_LINGER, &hard, sizeof hard);
    server.reset();
    CHECK(client.closed_within(3s));
  }
}

TEST_CASE(
    "a relayed server learns its client's address by X-Forwarded-For, and by no other's word") {
  TestLab lab({.servers = 1}, relay_pool("mode = \"relay\"\nclient_address = \"x_forwarded_for\"\n"
                                         "servers = [{ node = \"server1\", port = 80 }]"));
  const Listener listener(lab.netns("server1"), 80);
  for (const bool ipv6 : {false, true}) {
    HttpClient client(lab.netns("client1"), vip(ipv6));
    client.send(get("/x", "X-Forwarded-For: 192.0.2.77\r\n"));
    sys::UniqueFd server = listener.accept();
    const std::string head = read_until(server, "\r\n\r\n");
    INFO(head);
    const auto last = head.rfind("X-Forwarded-For: ");
    REQUIRE(last != std::string::npos);
    CHECK(
        head.substr(last).starts_with("X-Forwarded-For: " + client.local().address.str() + "\r\n"));
    write_all(server, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
    CHECK(client.receive().body == "ok");
  }
}

TEST_CASE("a flow table that is full: the connection is relayed, and no live flow goes") {
  TestLab lab({.servers = 1}, relay_pool("servers = [{ node = \"server1\", port = 80 }]") +
                                  "[limits]\nflows = 1\n");
  if (skipped(lab)) return;
  const lab::Payload file = lab.add_file("1k", 1024);
  lab.start_server(ServerKind::kNginx, "server1");
  HttpClient first(lab.netns("client1"), vip(false));
  first.send(get("/1k"));
  REQUIRE(first.receive().keeps_alive);
  for (const bool ipv6 : {false, true}) {
    INFO(lab.logs());
    HttpClient second(lab.netns("client1"), vip(ipv6));
    second.send(get("/1k"));
    const Response response = second.receive();
    CHECK(lab::sha256_of_bytes(response.body) == file.sha256);
    CHECK_FALSE(response.keeps_alive);  // the server was told to end it
  }
  first.send(get("/1k"));
  CHECK(lab::sha256_of_bytes(first.receive().body) == file.sha256);
  CHECK(relays(lab, "the switch refuses to move it") == 2);
}

TEST_CASE("what cannot be moved is answered with 503 where the pool says so") {
  TestLab lab({.servers = 1},
              relay_pool("fallback = \"refuse\"\nservers = [{ node = \"server1\", port = 80 }]") +
                  "[limits]\nflows = 1\n");
  if (skipped(lab)) return;
  lab.add_file("1k", 1024);
  lab.start_server(ServerKind::kNginx, "server1");
  HttpClient first(lab.netns("client1"), vip(false));
  first.send(get("/1k"));
  REQUIRE(first.receive().status == 200);
  HttpClient second(lab.netns("client1"), vip(false));
  second.send(get("/1k"));
  CHECK(second.receive().status == 503);
}

TEST_CASE("servers without an agent: their connections are relayed, GET and POST, and counted") {
  TestLab lab({.servers = 2}, relay_pool("servers = [{ node = \"server1\", port = 80 }, "
                                         "{ node = \"server2\", port = 80 }]"));
  if (skipped(lab) || skipped_in_repair("whoever is under tcpmig exec has an agent")) return;
  lab.start_server(ServerKind::kNode, "server1");
  lab.start_server(ServerKind::kNode, "server2");
  const std::string reason = "no agent on any server";
  const auto post = [&](bool ipv6) {
    HttpClient client(lab.netns("client1"), vip(ipv6));
    client.send("POST /upload HTTP/1.1\r\nHost: lab\r\nContent-Length: 5\r\n\r\nhello");
    return client.receive();
  };
  const auto moved = [&] { return lab::role_number(*lab, "switch1", "committed"); };
  const std::string answer = lab::sha256_of_bytes("hello") + "\n";

  const auto take_away = [&](const std::string& node) {
    const auto agent = lab::identify(lab.role_pid(node)).value();
    ::kill(agent.pid, SIGTERM);
    REQUIRE(lab::wait_until(10s, [&] {
      lab::poll_exit(agent.pid);
      return !lab::is_alive(agent);
    }));
    REQUIRE(run_in(*lab, node, {program(), "agent", "down"}).code == 0);
  };
  take_away("server1");
  INFO(lab.logs());
  REQUIRE(lab::wait_until(10s, [&] {  // until it is missed, what goes there has nobody to answer
    const auto servers = lab::role_status(*lab, "dispatcher1").at("servers");
    return std::ranges::any_of(servers, [](const auto& server) {
      return server.at("name") == "server1" && server.at("alive") == false;
    });
  }));
  // One has an agent, and all is moved there.
  for (int i = 0; i < 6; ++i) CHECK(post(i % 2 != 0).body == answer);
  CHECK(moved() == 6);
  // It refuses: the other one is offered nothing, once nothing has come from it for long. (A POST would end with 504.)
  lab.stop_server("server2");
  REQUIRE(lab::wait_until(30s, [&] {
    return post(false).body == answer && relays(lab, "no server would take it") > 0;
  }));
  const auto offered = lab::role_number(*lab, "dispatcher1", "commits_sent");
  for (const bool ipv6 : {false, true}) CHECK(post(ipv6).body == answer);
  CHECK(lab::role_number(*lab, "dispatcher1", "commits_sent") == offered + 4);  // and taken back
  CHECK(relays(lab, reason) == 0);
  lab.start_server(ServerKind::kNode, "server2");

  take_away("server2");
  const auto begun = std::chrono::steady_clock::now();
  REQUIRE(lab::wait_until(10s, [&] {
    post(false);
    return relays(lab, reason) > 0;
  }));
  CHECK(std::chrono::steady_clock::now() - begun < 10s);
  const auto before = relays(lab, reason);
  const auto committed = moved();
  for (const bool ipv6 : {false, true}) {
    CHECK(post(ipv6).body == answer);
    HttpClient client(lab.netns("client1"), vip(ipv6));
    client.send(get("/missing"));
    CHECK(client.receive().status == 404);  // the server's own
  }
  CHECK(relays(lab, reason) == before + 4);
  CHECK(moved() == committed);

  lab.restart_role("server1");
  CHECK(lab::wait_until(10s, [&] {
    const auto now = moved();
    return post(true).body == answer && moved() > now;
  }));
}
