// SPDX-License-Identifier: MIT
// The service's sequence numbers wrap in the middle of a reply that a server sends under the numbers of a dispatcher.
//
// The first number is the dispatcher's kernel's: a hash of the four-tuple, and a clock that adds one every 64 ns
// (net/core/secure_seq.c). So a client tries ports until one is near.
#include <netinet/tcp.h>

#include <thread>

#include "catch.hpp"
#include "e2e/outage.hpp"
#include "e2e/strange.hpp"
#include "sys/check.hpp"

using namespace tcpmig;
using namespace tcpmig::e2e;

namespace {

using Clock = std::chrono::steady_clock;

void set(int fd, int name, int value) {
  sys::check("setsockopt", ::setsockopt(fd, IPPROTO_TCP, name, &value, sizeof value));
}

/// The number that the client's kernel expects next.
std::uint32_t expected(const HttpClient& client) {
  constexpr int kOffWithoutProbe = -1;
  std::uint32_t number = 0;
  socklen_t size = sizeof number;
  set(client.fd(), TCP_REPAIR, 1);
  set(client.fd(), TCP_REPAIR_QUEUE, TCP_RECV_QUEUE);
  sys::check("getsockopt TCP_QUEUE_SEQ",
             ::getsockopt(client.fd(), IPPROTO_TCP, TCP_QUEUE_SEQ, &number, &size));
  set(client.fd(), TCP_REPAIR, kOffWithoutProbe);
  return number;
}

/// How many bytes come before the wrap.
std::uint32_t distance(std::uint32_t number) { return 0 - number; }

/// One in 178 is as near as that: it will not take 4,000.
HttpClient connect_before_wrap(const TestLab& lab, bool ipv6) {
  constexpr std::uint32_t kNearest = 1 << 20, kFarthest = 24 << 20;
  for (int i = 0; i < 4'000; ++i) {
    HttpClient client(lab.netns("client1"), vip(ipv6));
    const std::uint32_t left = distance(expected(client));
    if (left >= kNearest && left <= kFarthest) return client;
  }
  throw std::runtime_error("no connection is near the wrap");
}

/// The number of the SYN-ACK that this endpoint gets, of a connection that goes no further.
std::uint32_t first_number(Strange& world, const sys::Endpoint& local, const sys::Endpoint& to) {
  RawClient client(*world.network, local, to, {});
  client.send_syn();
  REQUIRE(client.wait([&] { return client.syn_ack().has(kSyn); }, 5s));
  client.send_reset();
  return client.syn_ack().seq;
}

/// An endpoint, and when its first number will be `left` bytes before the wrap: soon.
std::pair<sys::Endpoint, Clock::time_point> find_endpoint(Strange& world, bool ipv6,
                                                          std::uint32_t left) {
  constexpr std::chrono::nanoseconds kTick{64};
  for (int i = 0; i < 4'000; ++i) {
    const sys::Endpoint local = world.network->fresh(ipv6);
    const auto now = Clock::now();
    const auto until = kTick * (distance(first_number(world, local, vip(ipv6))) - left);
    if (until > 100ms && until < 1500ms) return {local, now + until};
  }
  throw std::runtime_error("no endpoint is near the wrap");
}

/// Connected, and the reply will wrap within its first 200 KB.
std::unique_ptr<RawClient> connect_raw_before_wrap(Strange& world, bool ipv6, const Shape& shape) {
  constexpr std::uint32_t kMost = 200 << 10;
  for (int i = 0; i < 10; ++i) {  // the machine may be busy just then
    const auto [local, when] = find_endpoint(world, ipv6, kMost / 2);
    std::this_thread::sleep_until(when);
    auto client = std::make_unique<RawClient>(*world.network, local, vip(ipv6), shape);
    if (client->connect() && distance(client->rcv_nxt()) - 1 < kMost) return client;
    client->send_reset();
  }
  throw std::runtime_error("no connection began near the wrap");
}

}  // namespace

TEST_CASE(
    "the service's numbers wrap in a long reply after the transfer, and the connection goes on") {
  const auto datapath = GENERATE(config::Datapath::kTc, config::Datapath::kXdp);
  Strange world({.servers = 1, .datapath = datapath});
  if (skipped(world.lab)) return;
  TestLab& lab = world.lab;
  const lab::Payload large = lab.add_file("32m", 32 << 20);
  std::uint64_t moved = 0;
  for (const bool ipv6 : {false, true})
    for (const std::string& head : {std::string(), long_head()}) {
      INFO((ipv6 ? "v6, " : "v4, ") << head.size() << '\n' << lab.logs());
      const auto closed = world.switched("closed");
      sys::Endpoint local;
      {
        HttpClient client = connect_before_wrap(lab, ipv6);
        local = client.local();
        const std::uint32_t before = expected(client);
        client.send(get("/32m", head));
        const Response response = client.receive();
        CHECK(is_file(response, large));
        CHECK(expected(client) - before > large.size);
        CHECK(expected(client) < before);  // it has wrapped
        client.send(get("/1k"));
        CHECK(is_file(client.receive(), world.small));
        CHECK(world.committed() == ++moved);
      }
      CHECK(lab::wait_until(10s, [&] { return world.switched("closed") > closed; }));
      CHECK(lab::wait_until(10s, [&] { return sockets_of(lab, "server1", local) == 0; }));
    }
  CHECK(status_of(lab, "dispatcher1").at("relayed").empty());
}

TEST_CASE(
    "the service's numbers wrap at the beginning of a reply to a raw client, and no RST comes") {
  const auto datapath = GENERATE(config::Datapath::kTc, config::Datapath::kXdp);
  Strange world({.servers = 1, .datapath = datapath});
  if (skipped(world.lab)) return;
  std::uint64_t moved = 0;
  for (const bool ipv6 : {false, true})
    for (const bool timestamps : {true, false}) {
      INFO((ipv6 ? "v6" : "v4") << (timestamps ? "\n" : ", no timestamps\n") << world.lab.logs());
      const auto client = connect_raw_before_wrap(world, ipv6, {.timestamps = timestamps});
      const auto closed = world.switched("closed");
      client->send(get("/300k"));
      CHECK(is_file(client->receive(), world.large));
      CHECK(client->rcv_nxt() < client->syn_ack().seq);  // it has wrapped
      CHECK(world.committed() == ++moved);
      CHECK(client->close());
      CHECK_FALSE(client->reset());
      CHECK(client->wait([&] { return world.switched("closed") == closed + 1; }));
    }
}
