// SPDX-License-Identifier: MIT
// How connections of raw clients end, early, late and twice, and begin again from the same port.
#include "catch.hpp"
#include "e2e/strange.hpp"

using namespace tcpmig;
using namespace tcpmig::e2e;
using lab::ServerKind;

namespace {

/// Sockets of raw clients on a node, in whatever state but TIME_WAIT.
std::size_t sockets(const TestLab& lab, const std::string& node) {
  const Output output =
      run_in(*lab, node, {"ss", "-Htn", "state", "connected", "exclude", "time-wait"});
  REQUIRE(output.code == 0);
  std::size_t count = 0;
  for (const std::string_view client : {"10.0.9.2", "fd00:9::2"})
    for (std::size_t at = output.out.find(client); at != std::string::npos;
         at = output.out.find(client, at + 1))
      ++count;
  return count;
}

/// No socket is left of any connection, on the server or the dispatcher.
void check_nothing_left(Strange& world) {
  INFO(run_in(*world.lab, "server1", {"ss", "-Htan"}).out << world.lab.logs());
  for (const std::string node : {"server1", "dispatcher1"}) {
    INFO(node);
    CHECK(world.network->run([&] { return sockets(world.lab, node) == 0; }, 10s));
  }
}

}  // namespace

// (nginx and node take a FIN during a long answer for an abort)
TEST_CASE("the FIN of a raw client with its request, after it, and in mid-transfer") {
  const auto kind = ServerKind::kMiniHttpd;
  Strange world({.servers = 1}, {}, false);
  if (skipped(world.lab)) return;
  world.lab.start_server(kind, "server1");
  unsigned transfers = 0;
  for (const bool ipv6 : {false, true})
    for (const int when : {0, 1, 2, 3}) {
      INFO(to_string(kind) << (ipv6 ? " v6 " : " v4 ") << when << '\n' << world.lab.logs());
      RawClient client(*world.network, vip(ipv6));
      REQUIRE(client.connect());
      const std::string request = get("/300k", "Connection: close\r\n");
      client.send(request, when == 0 ? kPsh | kFin : kPsh);
      if (when == 2)
        client.wait([&] { return world.committed() > transfers; });
      else if (when == 3)
        client.wait([&] { return client.stream().size() > 20'000; });
      if (when > 0) client.send_fin();
      CHECK(is_file(client.receive(), world.large));
      CHECK(client.wait_for_end());
      CHECK(client.wait_for_acknowledged());
      CHECK_FALSE(client.reset());
      CHECK(world.committed() == ++transfers);
    }
  check_nothing_left(world);
}

TEST_CASE("the RST of a raw client in every phase: no socket stays, no storm of RSTs") {
  const auto datapath = GENERATE(config::Datapath::kTc, config::Datapath::kXdp);
  Strange world({.servers = 1, .datapath = datapath});
  if (skipped(world.lab)) return;
  const std::string request = get("/300k");
  const std::pair<const char*, std::function<void(RawClient&)>> phases[] = {
      {"before the head", [](RawClient&) {}},
      {"in the head", [&](RawClient& c) { c.send(request.substr(0, 20)); }},
      {"with the head", [&](RawClient& c) { c.transmit(c.snd_nxt(), request, kRst | kAck); }},
      {"right after it", [&](RawClient& c) { c.send(request); }},
      {"when it is acknowledged",
       [&](RawClient& c) {
         c.send(request);
         c.wait_for_acknowledged();
       }},
      {"when the answer begins",
       [&](RawClient& c) {
         c.send(request);
         c.wait([&] { return !c.stream().empty(); });
       }},
      {"after a part of the answer",
       [&](RawClient& c) {
         c.send(request);
         c.wait([&] { return c.stream().size() > 100'000; });
       }},
      {"after the answer", [&](RawClient& c) {
         c.send(request);
         CHECK(is_file(c.receive(), world.large));
       }}};
  for (const bool ipv6 : {false, true})
    for (const auto& [name, act] : phases)
      for (int i = 0; i < 4; ++i) {
        INFO(name << (ipv6 ? " v6\n" : " v4\n") << world.lab.logs());
        RawClient client(*world.network, vip(ipv6));
        REQUIRE(client.connect());
        act(client);
        client.acknowledges = false;
        client.send_reset();
        client.wait([] { return false; }, 5ms);
        CHECK(client.count(kRst) <= 2);
      }
  check_nothing_left(world);
  std::size_t resets = 0;
  for (const Packet& stray : world.network->strays()) resets += stray.segment.has(kRst) ? 1 : 0;
  CHECK(resets <= 64);
  RawClient next(*world.network, vip(false));
  REQUIRE(next.connect());
  next.send(get("/1k"));
  CHECK(is_file(next.receive(), world.small));
}

TEST_CASE(
    "a port that is used again at once: a dispatcher serves the new connection, and it moves") {
  const auto datapath = GENERATE(config::Datapath::kTc, config::Datapath::kXdp);
  Strange world({.servers = 1, .datapath = datapath});
  if (skipped(world.lab)) return;
  const std::pair<const char*, std::function<void(RawClient&)>> endings[] = {
      {"the server closes first",
       [&](RawClient& c) {
         c.send(get("/1k", "Connection: close\r\n"));
         CHECK(is_file(c.receive(), world.small));
         CHECK(c.wait_for_end());
         CHECK(c.close());
       }},
      {"the client closes first",
       [&](RawClient& c) {
         c.send(get("/1k"));
         CHECK(is_file(c.receive(), world.small));
         CHECK(c.close());
       }},
      {"a RST", [&](RawClient& c) {
         c.send(get("/1k"));
         CHECK(is_file(c.receive(), world.small));
         c.send_reset();
       }}};
  for (const bool ipv6 : {false, true})
    for (const auto& [name, end] : endings) {
      const sys::Endpoint local = world.network->fresh(ipv6);
      std::string last;
      for (std::uint32_t turn = 0; turn < 4; ++turn) {
        INFO(name << (ipv6 ? " v6, turn " : " v4, turn ") << turn << '\n' << world.lab.logs());
        const auto before = world.committed();
        // a Linux client's number goes up, another's may be anything
        const std::uint32_t isn = turn == 3 ? 5'000 : 1'000'000 + turn * 100'000;
        RawClient client(*world.network, local, vip(ipv6), {.isn = isn});
        bool connected = client.connect(200ms);
        for (int again = 0; !connected && again < 20; ++again) connected = client.connect(200ms);
        INFO(last << client.seen_text());
        REQUIRE(connected);
        end(client);
        last = client.seen_text();
        CHECK(world.committed() == before + 1);
      }
    }
  check_nothing_left(world);
}
