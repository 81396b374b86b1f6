// SPDX-License-Identifier: MIT
// What follows the head of a request: bodies larger than any queue, large heads, single bytes,
// pipelined requests.
#include "catch.hpp"
#include "e2e/support.hpp"

using namespace tcpmig;
using namespace tcpmig::e2e;
using lab::ServerKind;

TEST_CASE("curl uploads 5 MB and the server answers with the checksum") {
  const auto datapath = GENERATE(config::Datapath::kTc, config::Datapath::kXdp);
  TestLab lab({.servers = 1, .datapath = datapath});
  if (skipped(lab)) return;
  const lab::Payload file = lab.add_file("5m", 5 << 20);
  lab.start_server(ServerKind::kNode, "server1");
  for (const bool ipv6 : {false, true})
    for (const std::string expect : {"Expect:", "Expect: 100-continue"}) {
      INFO((ipv6 ? "v6 " : "v4 ") << expect << '\n' << lab.logs());
      const Output output =
          run_in(*lab, "client1",
                 {"curl", "-sS", "--fail", "-m", "40", "-H", expect, "--data-binary",
                  "@" + (lab.documents() / file.name).string(), url("/upload", ipv6)});
      INFO(output.error);
      CHECK(output.code == 0);
      CHECK(output.out == file.sha256 + "\n");
    }
}

TEST_CASE("a body sent together with the head, without waiting, arrives whole") {
  TestLab lab({.servers = 1});
  if (skipped(lab)) return;
  lab.start_server(ServerKind::kNode, "server1");
  for (const std::size_t size : {1'000UL, 10'000UL, 30'000UL, 100'000UL, 1'000'000UL}) {
    std::string body(size, '\0');
    for (std::size_t i = 0; i < size; ++i)
      body[i] = static_cast<char>('a' + (i * 7 + i / 251) % 26);
    HttpClient client(lab.netns("client1"), vip(false));
    client.send("POST /upload HTTP/1.1\r\nHost: lab\r\nContent-Length: " + std::to_string(size) +
                "\r\n\r\n" + body);
    const Response response = client.receive();
    INFO(size << " bytes\n" << lab.logs());
    REQUIRE(response.status == 200);
    CHECK(response.body.substr(0, 64) == lab::sha256_of_bytes(body));
  }
}

TEST_CASE("a head of 60 KB is moved in several parts") {
  TestLab lab({.servers = 2}, pool_per_server(2));
  if (skipped(lab)) return;
  const lab::Payload file = lab.add_file("1k", 1024);
  lab.start_server(ServerKind::kPython, "server1");  // at most 64 KB a line
  lab.start_server(ServerKind::kMiniHttpd, "server2");
  for (const std::string node : {"server1", "server2"})
    for (const bool ipv6 : {false, true}) {
      INFO(node << (ipv6 ? " v6\n" : " v4\n") << lab.logs());
      HttpClient client(lab.netns("client1"), vip(ipv6));
      client.send(get("/" + node + "/1k", "X-Filler: " + std::string(60'000, 'x') + "\r\n"));
      const Response response = client.receive();
      REQUIRE(response.status == 200);
      CHECK(lab::sha256_of_bytes(response.body) == file.sha256);
    }
}

TEST_CASE("a request that comes byte by byte") {
  TestLab lab({.servers = 1});
  if (skipped(lab)) return;
  const lab::Payload file = lab.add_file("1k", 1024);
  lab.start_server(ServerKind::kMiniHttpd, "server1");
  for (const bool ipv6 : {false, true}) {
    HttpClient client(lab.netns("client1"), vip(ipv6));
    client.send_slowly(get("/1k", "X-One: at a time\r\n"));
    const Response response = client.receive();
    REQUIRE(response.status == 200);
    CHECK(lab::sha256_of_bytes(response.body) == file.sha256);
  }
}

TEST_CASE("pipelined requests all go to the server that got the first") {
  TestLab lab({.servers = 1});
  if (skipped(lab)) return;
  const lab::Payload small = lab.add_file("1k", 1024);
  const lab::Payload large = lab.add_file("100k", 100 << 10);
  lab.start_server(ServerKind::kNginx, "server1");
  for (const int depth : {2, 20, 200}) {
    HttpClient client(lab.netns("client1"), vip(false));
    std::string requests;
    for (int i = 0; i < depth; ++i) requests += get(i % 2 == 0 ? "/1k" : "/100k");
    client.send(requests);
    for (int i = 0; i < depth; ++i) {
      const Response response = client.receive();
      INFO("request " << i + 1 << " of " << depth << '\n' << lab.logs());
      REQUIRE(response.status == 200);
      REQUIRE(lab::sha256_of_bytes(response.body) == (i % 2 == 0 ? small : large).sha256);
    }
  }
}

TEST_CASE("a client that closes its sending side after the request still gets the answer") {
  TestLab lab({.servers = 1});
  if (skipped(lab)) return;
  const lab::Payload file = lab.add_file("1m", 1 << 20);
  lab.start_server(ServerKind::kMiniHttpd, "server1");
  for (const bool ipv6 : {false, true}) {
    HttpClient client(lab.netns("client1"), vip(ipv6));
    client.send(get("/1m", "Connection: close\r\n"));
    client.half_close();
    const Response response = client.receive();
    INFO(lab.logs());
    REQUIRE(response.status == 200);
    CHECK(lab::sha256_of_bytes(response.body) == file.sha256);
  }
}
