// SPDX-License-Identifier: MIT
// Requests that clients may write and seldom do, and connections that stop being HTTP.
#include "catch.hpp"
#include "e2e/listener.hpp"
#include "e2e/strange.hpp"

using namespace tcpmig;
using namespace tcpmig::e2e;
using namespace std::string_literals;

namespace {

struct Odd {
  const char* name;
  std::string bytes;
  int status;
  bool moves;             ///< the server answers, not the dispatcher
  bool with_body = true;  ///< the answer's
};

void check_request(Strange& world, const Odd& odd, bool ipv6) {
  INFO(odd.name << (ipv6 ? " v6\n" : " v4\n") << world.lab.logs());
  const auto before = world.committed();
  RawClient client(*world.network, vip(ipv6));
  REQUIRE(client.connect());
  REQUIRE(client.upload(odd.bytes));
  const Response response = client.receive(odd.with_body);
  CHECK(response.status == odd.status);
  CHECK(response.complete);
  if (odd.status == 200 && odd.with_body)
    CHECK(lab::sha256_of_bytes(response.body) == world.small.sha256);
  CHECK(world.committed() == before + (odd.moves ? 1 : 0));
  if (odd.moves && response.keeps_alive) {
    client.send(get("/1k"));
    CHECK(is_file(client.receive(), world.small));
  }
  CHECK(client.close());
  CHECK(client.stream().empty());  // no byte more than the answers
}

/// A client's request to change the protocol, and a server of the test's own that agrees.
const std::string kUpgrade = get("/chat",
                                 "Upgrade: websocket\r\nConnection: Upgrade\r\n"
                                 "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
                                 "Sec-WebSocket-Version: 13\r\n");
const std::string kAgreed =
    "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    "Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";

}  // namespace

TEST_CASE(
    "requests that clients may write: HEAD, HTTP/1.0, absolute-form, CONNECT, OPTIONS, large") {
  Strange world;
  if (skipped(world.lab)) return;
  const Odd odds[] = {
      {"HEAD", "HEAD /1k HTTP/1.1\r\nHost: lab\r\n\r\n", 200, true, false},
      {"HTTP/1.0", "GET /1k HTTP/1.0\r\n\r\n", 200, true},
      {"HTTP/1.0, kept alive", "GET /1k HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", 200, true},
      {"absolute-form", "GET http://lab.example/1k HTTP/1.1\r\nHost: lab.example\r\n\r\n", 200,
       true},
      {"CONNECT", "CONNECT lab.example:80 HTTP/1.1\r\nHost: lab.example:80\r\n\r\n", 404, false},
      {"OPTIONS", "OPTIONS * HTTP/1.1\r\nHost: lab\r\n\r\n", 404, false},
      {"an empty line first", "\r\nGET /1k HTTP/1.1\r\nHost: lab\r\n\r\n", 400, false},
      {"20 KB of head",
       get("/1k",
           [] {
             std::string fields;
             for (int i = 0; i < 10; ++i)
               fields += "X-" + std::to_string(i) + ": " + std::string(2'000, 'x') + "\r\n";
             return fields;
           }()),
       200, true},
      {"bare LF", "GET /1k HTTP/1.1\nHost: lab\n\n", 400, false},
      {"a LF in a field", "GET /1k HTTP/1.1\r\nHost: lab\nX: y\r\n\r\n", 400, false},
      {"a NUL in a field", "GET /1k HTTP/1.1\r\nHost: lab\r\nX: \0\r\n\r\n"s, 400, false},
      {"a space before the colon", "GET /1k HTTP/1.1\r\nHost : lab\r\n\r\n", 400, false},
      {"two lengths",
       "POST /1k HTTP/1.1\r\nHost: lab\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello", 400,
       false},
  };
  for (const bool ipv6 : {false, true})
    for (const Odd& odd : odds) check_request(world, odd, ipv6);
}

TEST_CASE("a connection that becomes a WebSocket lives on, in both directions") {
  const auto datapath = GENERATE(config::Datapath::kTc, config::Datapath::kXdp);
  Strange world({.servers = 1, .datapath = datapath}, {}, false);
  if (skipped(world.lab) ||
      skipped_in_repair("its server is the test itself, not under tcpmig exec"))
    return;
  const Listener listener(world.lab.netns("server1"), 80);
  for (const bool ipv6 : {false, true}) {
    INFO((ipv6 ? "v6\n" : "v4\n") << world.lab.logs());
    const auto before = world.committed();
    RawClient client(*world.network, vip(ipv6));
    REQUIRE(client.connect());
    client.send(kUpgrade + "a frame that does not wait");
    const sys::UniqueFd server = listener.accept();
    CHECK(read_until(server, "does not wait") == kUpgrade + "a frame that does not wait");
    write_all(server, kAgreed);
    CHECK(client.receive(false).status == 101);
    CHECK(world.committed() == before + 1);
    for (int frame = 0; frame < 50; ++frame) {
      const std::string text(static_cast<std::size_t>(1 + frame * 37),
                             static_cast<char>('a' + frame % 26));
      client.send(text + ".");
      CHECK(read_until(server, ".") == text + ".");
      write_all(server, text + "!");  // and the server speaks unasked
      write_all(server, "more");
      REQUIRE(client.wait([&] { return client.stream().size() >= text.size() + 5; }));
      CHECK(client.take_stream() == text + "!more");
    }
    client.send_fin();
    CHECK(read_until(server, "never").empty());
    write_all(server, "last words");
    CHECK(client.wait([&] { return client.stream() == "last words"; }));
    ::shutdown(server.get(), SHUT_WR);
    CHECK(client.wait_for_end());
    CHECK(world.committed() == before + 1);
  }
}
