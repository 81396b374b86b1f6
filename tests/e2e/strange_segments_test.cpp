// SPDX-License-Identifier: MIT
// Segments that the book allows and clients seldom send: windows that are shut, data in the SYN,
// urgent data, signatures, segments that come again, or before their turn, or do not belong.
#include <signal.h>

#include <fstream>

#include "catch.hpp"
#include "e2e/strange.hpp"
#include "sys/netns.hpp"

using namespace tcpmig;
using namespace tcpmig::e2e;

namespace {

bool serves(Strange& world, RawClient& client, std::uint8_t flags = kPsh) {
  client.send(get("/1k"), flags);
  return is_file(client.receive(), world.small);
}

std::size_t logged(const Strange& world) { return world.lab.server("server1").log().size(); }

/// A connection that has been moved, and answered once.
std::unique_ptr<RawClient> moved(Strange& world, bool ipv6) {
  const auto before = world.committed();
  auto client = std::make_unique<RawClient>(*world.network, vip(ipv6));
  REQUIRE(client->connect());
  REQUIRE(serves(world, *client));
  REQUIRE(world.committed() == before + 1);
  REQUIRE(client->wait_for_acknowledged());
  return client;
}

}  // namespace

TEST_CASE(
    "a raw client whose window is shut when its connection moves, and one with small windows") {
  Strange world;
  if (skipped(world.lab)) return;
  for (const bool ipv6 : {false, true}) {
    INFO((ipv6 ? "v6\n" : "v4\n") << world.lab.logs());
    const auto before = world.committed();
    RawClient shut(*world.network, vip(ipv6));
    REQUIRE(shut.connect());
    shut.window = 0;
    shut.send(get("/300k"));
    CHECK(shut.wait([&] { return world.committed() == before + 1; }));
    const std::size_t seen = shut.seen().size();
    // the server's window probe: one old byte's number, no data
    CHECK(shut.wait([&] { return shut.seen().size() > seen + 1; }));
    CHECK(shut.stream().empty());
    shut.window = 60'000;
    shut.send_ack();
    CHECK(is_file(shut.receive(), world.large));
    CHECK(shut.close());

    for (const std::uint32_t window : {100U, 536U, 2'000U}) {
      INFO("window " << window);
      RawClient narrow(*world.network, vip(ipv6), {.wscale = {}, .window = window});
      REQUIRE(narrow.connect());
      CHECK(serves(world, narrow));
      for (const Segment& segment : narrow.seen()) CHECK(segment.payload.size() <= window);
      CHECK(narrow.close());
    }
    CHECK(world.committed() == before + 4);
  }
}

TEST_CASE("raw clients with TCP Fast Open: no cookie is given, data in the SYN is sent again") {
  Strange world;
  if (skipped(world.lab)) return;
  const std::string request = get("/1k");
  for (const bool ipv6 : {false, true})
    for (const auto& [cookie, data] : {std::pair<std::optional<std::string>, std::string>{"", ""},
                                       {"12345678", request},
                                       {"12345678", request.substr(0, 10)},
                                       {std::nullopt, request}}) {
      INFO((ipv6 ? "v6 " : "v4 ") << "cookie " << cookie.value_or("none") << '\n'
                                  << world.lab.logs());
      const auto before = world.committed();
      RawClient client(*world.network, vip(ipv6), {.fast_open = cookie, .syn_data = data});
      REQUIRE(client.connect());
      CHECK(client.snd_una() == client.snd_nxt());
      CHECK_FALSE(client.syn_ack().fast_open);
      CHECK(serves(world, client));
      CHECK(world.committed() == before + 1);
      CHECK(client.close());
    }
}

TEST_CASE(
    "a dispatcher whose kernel takes data in the SYN: the client gets its answer all the same") {
  Strange world;
  if (skipped(world.lab)) return;
  {  // server, without a cookie, for every listener: TFO_SERVER_ENABLE | .._WO_SOCKOPT1 | COOKIE_NOT_REQD
    const sys::EnterNetns inside(world.lab.netns("dispatcher1"));
    std::ofstream("/proc/sys/net/ipv4/tcp_fastopen") << 0x602 << std::flush;
  }
  REQUIRE(::kill(world.lab.role_pid("dispatcher1"), SIGKILL) == 0);
  world.lab.restart_role("dispatcher1");
  for (const bool ipv6 : {false, true})
    for (int i = 0; i < 4; ++i) {
      INFO((ipv6 ? "v6\n" : "v4\n") << world.lab.logs());
      const std::string request = get("/1k", "Connection: close\r\n");
      RawClient client(*world.network, vip(ipv6), {.fast_open = "", .syn_data = request});
      client.send_syn();
      REQUIRE(client.wait([&] { return client.syn_ack().has(kSyn); }));
      client.take_syn_data();
      if (i % 2 != 0) client.send_ack();
      CHECK(is_file(client.receive(), world.small));
      const bool ended = client.wait_for_end();
      INFO(i << '\n' << client.seen_text());
      CHECK(ended);
      CHECK(client.close());
    }
  const std::string reason = "the connection is not established (SYN_RECV)";
  INFO(lab::role_status(*world.lab, "dispatcher1").dump(1));
  CHECK(world.committed() + world.relayed(reason) == 8);
}

TEST_CASE("urgent data of a raw client: relayed while it waits, the server's matter afterwards") {
  Strange world;
  if (skipped(world.lab)) return;
  for (const bool ipv6 : {false, true}) {
    INFO((ipv6 ? "v6\n" : "v4\n") << world.lab.logs());
    const std::string reason = "urgent data is waiting";
    const auto before = world.relayed(reason);
    RawClient client(*world.network, vip(ipv6));
    REQUIRE(client.connect());
    const std::string request = get("/1k", "Connection: close\r\n") + "!";
    client.send_urgent(request);
    CHECK(is_file(client.receive(), world.small));
    CHECK(world.relayed(reason) == before + 1);
    CHECK(client.wait_for_end());
    CHECK_FALSE(client.reset());

    const auto later = moved(world, ipv6);
    later->send_urgent("!");  // out of the stream, as everywhere
    CHECK(serves(world, *later));
    CHECK_FALSE(later->reset());
  }
}

TEST_CASE("a raw client that signs its segments (TCP-MD5) is not answered") {
  Strange world;
  for (const bool ipv6 : {false, true}) {
    RawClient client(*world.network, vip(ipv6), {.md5 = true});
    CHECK_FALSE(client.connect(300ms));
    CHECK(client.seen().empty());
  }
}

TEST_CASE("segments that come again, or do not belong, after the transfer: acknowledged, no more") {
  const auto datapath = GENERATE(config::Datapath::kTc, config::Datapath::kXdp);
  Strange world({.servers = 1, .datapath = datapath});
  if (skipped(world.lab)) return;
  const auto size = static_cast<std::uint32_t>(get("/1k").size());
  struct Odd {
    const char* name;
    std::function<void(RawClient&)> send;
  };
  const Odd odds[] = {
      {"the request again",
       [&](RawClient& c) { c.transmit(c.snd_nxt() - size, get("/1k"), kAck | kPsh); }},
      {"its end again",
       [&](RawClient& c) { c.transmit(c.snd_nxt() - 10, get("/1k").substr(size - 10), kAck); }},
      {"a keep-alive probe", [](RawClient& c) { c.transmit(c.snd_nxt() - 1, {}, kAck); }},
      {"one with a byte", [](RawClient& c) { c.transmit(c.snd_nxt() - 1, "\n", kAck); }},
      {"far ahead", [](RawClient& c) { c.transmit(c.snd_nxt() + 50'000'000, "x", kAck); }},
      {"far behind", [](RawClient& c) { c.transmit(c.snd_nxt() - 50'000'000, "x", kAck); }},
      {"a SYN", [](RawClient& c) { c.transmit(c.snd_nxt() + 77'000, {}, kSyn); }},
      {"a SYN with the old number", [](RawClient& c) { c.transmit(999'999, {}, kSyn); }},
      {"a RST beside the number", [](RawClient& c) { c.transmit(c.snd_nxt() + 10, {}, kRst); }},
      {"a RST far out", [](RawClient& c) { c.transmit(c.snd_nxt() - 5'000'000, {}, kRst); }},
      {"a FIN far ahead",
       [](RawClient& c) { c.transmit(c.snd_nxt() + 50'000'000, {}, kFin | kAck); }},
  };
  std::size_t requests = logged(world);
  for (const bool ipv6 : {false, true})
    for (const Odd& odd : odds) {
      INFO(odd.name << (ipv6 ? " v6\n" : " v4\n") << world.lab.logs());
      const auto client = moved(world, ipv6);
      const std::size_t seen = client->seen().size();
      odd.send(*client);
      if (std::string_view(odd.name) != "a RST far out") {
        CHECK(client->wait([&] { return client->seen().size() > seen; }, 5s));
        CHECK(client->seen().back().has(kAck));
        CHECK(client->seen().back().ack == client->snd_nxt());
      }
      CHECK(serves(world, *client));
      CHECK(client->close());
      CHECK_FALSE(client->reset());
      CHECK(client->stream().empty());
      requests += 2;
    }
  CHECK(lab::wait_until(5s, [&] { return logged(world) >= requests; }));
  CHECK(logged(world) == requests);
}

TEST_CASE("segments of a raw client that come in the wrong order, around the transfer") {
  Strange world;
  if (skipped(world.lab)) return;
  const std::string request = get("/1k");
  for (const bool ipv6 : {false, true})
    for (const std::size_t cut : {1UL, 20UL, request.size() - 1}) {
      INFO((ipv6 ? "v6\n" : "v4\n") << world.lab.logs());
      const auto before = world.committed();
      RawClient client(*world.network, vip(ipv6));
      REQUIRE(client.connect());
      const std::uint32_t seq = client.snd_nxt();
      // the second half, and a third request, before the first half; the second request is missing
      const auto third = seq + static_cast<std::uint32_t>(2 * request.size());
      client.transmit(third, request);
      client.transmit(seq + static_cast<std::uint32_t>(cut), request.substr(cut));
      client.transmit(seq, request.substr(0, cut));
      client.skip(request.size());
      CHECK(is_file(client.receive(), world.small));
      CHECK(world.committed() == before + 1);
      client.send(request);
      CHECK(is_file(client.receive(), world.small));
      client.send(request);  // what lay out of order did not move: sent again
      CHECK(is_file(client.receive(), world.small));
      CHECK(client.close());
    }
}

TEST_CASE("a damaged segment that comes while the connection is frozen goes nowhere") {
  Strange world;
  if (skipped(world.lab)) return;
  INFO(world.lab.logs());
  const auto lose_transfers = [&](const std::string& verb) {
    REQUIRE(run_in(*world.lab, "dispatcher1",
                   {"ip", "rule", verb, "pref", "1", "ipproto", "udp", "dport", "7420", "sport",
                    "10000-65534", "blackhole"})
                .code == 0);
  };
  RawClient client(*world.network, vip(false));
  REQUIRE(client.connect());
  lose_transfers("add");
  client.send(get("/1k"));
  REQUIRE(client.wait([&] { return world.dispatcher("counters", "frozen") == 1; }));
  // (a short one the kernel verifies before any filter: CHECKSUM_BREAK, 76 bytes)
  client.transmit_damaged(client.snd_nxt(), std::string(200, '?'));
  REQUIRE(client.wait([&] { return world.dispatcher("counters", "captures_dropped_damaged") == 1; },
                      1500ms));
  client.send(get("/1k"));
  lose_transfers("del");
  for (int answers = 0; answers < 2; ++answers) CHECK(is_file(client.receive(), world.small));
  CHECK(client.wait_for_acknowledged());
}
