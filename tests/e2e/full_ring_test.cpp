// SPDX-License-Identifier: MIT
// More comes for frozen connections than the ring of the lock takes (4 MB an event loop), while the dispatcher stands still.
#include <deque>

#include "catch.hpp"
#include "e2e/outage.hpp"
#include "e2e/strange.hpp"

using namespace tcpmig;
using namespace tcpmig::e2e;

namespace {

constexpr std::size_t kSegment = 1'400, kParts = 20, kAgain = 3'500;
/// Its dispatcher may stand still for that long.
const char* const kTimes =
    "[timeouts]\nhealth = \"60s\"\nhead = \"60s\"\nclosing = \"2s\"\nscan = \"500ms\"\n"
    "transfer = \"60s\"\n";

std::string body_of(std::size_t size) {
  std::string body(size, '\0');
  for (std::size_t i = 0; i < size; ++i) body[i] = static_cast<char>('a' + i * 7 % 23);
  return body;
}

/// As TCP does it: from the first byte that is not acknowledged, until there is an answer.
Response send_again(RawClient& client, const std::string& body) {
  const std::uint32_t end = client.snd_nxt();
  for (int round = 0; round < 100 && client.stream().empty() && !client.reset(); ++round) {
    for (std::size_t left = end - client.snd_una(); left > 0; left -= std::min(left, kSegment))
      client.transmit(end - static_cast<std::uint32_t>(left),
                      body.substr(body.size() - left, kSegment), kAck | kPsh);
    client.wait([&] { return !client.stream().empty(); }, 300ms);
  }
  return client.receive();
}

/// An ordinary client beside it: the first half of its body comes before the freeze, the other one when nobody reads.
struct Upload {
  Upload(const TestLab& lab, bool ipv6) : client(lab.netns("client1"), vip(ipv6)) {
    const std::string request = post("/server1/ordinary", body);
    client.send(request.substr(0, request.size() - kRest));
  }
  void go_on() { client.send(body.substr(body.size() - kRest)); }
  static constexpr std::size_t kRest = 10'000;
  std::string body = body_of(2 * kRest);
  HttpClient client;
};

}  // namespace

TEST_CASE(
    "more than the ring of the lock takes: counted, sent again by the client, and no byte lost") {
  Strange world({.servers = 1}, pool_per_server(1, kTimes), false);
  if (skipped(world.lab)) return;
  TestLab& lab = world.lab;
  lab.start_server(lab::ServerKind::kNode, "server1");
  const std::string body = body_of(kParts * kSegment);
  for (const bool ipv6 : {false, true}) {
    INFO((ipv6 ? "v6\n" : "v4\n") << lab.logs());
    const auto before = of_dispatcher(lab, "captures_without_room");
    RawClient client(*world.network, vip(ipv6));
    REQUIRE(client.connect());
    LostTransfers lost(lab, "dispatcher1");
    std::deque<Upload> uploads;
    for (int i = 0; i < 8; ++i) uploads.emplace_back(lab, ipv6);
    const std::string request = post("/server1/raw", body);
    client.send(std::string_view(request).substr(0, request.size() - body.size()));
    REQUIRE(client.wait([&] { return of_dispatcher(lab, "in_transfer") == 9; }));
    {
      const StoppedRole dispatcher(lab, "dispatcher1");
      const auto heard = world.switched("to_dispatcher");
      // one segment, again and again: no room for the rest
      for (std::size_t i = 0; i < kAgain; ++i)
        client.transmit(client.snd_nxt(), body.substr(0, kSegment), kAck | kPsh);
      client.send(body);
      for (Upload& upload : uploads) upload.go_on();
      REQUIRE(client.wait([&] { return world.switched("to_dispatcher") >= heard + kAgain; }));
    }
    REQUIRE(client.wait([&] { return of_dispatcher(lab, "captures_without_room") > before; }));
    CHECK(of_dispatcher(lab, "captures_without_room") >= before + kParts - 1);
    CHECK(client.snd_una() == client.snd_nxt() - body.size());  // nothing of it is acknowledged
    lost.end();
    const Response response = send_again(client, body);
    INFO(client.seen_text());
    CHECK(response.body == lab::sha256_of_bytes(body) + "\n");
    for (Upload& upload : uploads)
      CHECK(upload.client.receive().body == lab::sha256_of_bytes(upload.body) + "\n");
    CHECK(client.wait([&] { return of_dispatcher(lab, "in_transfer") == 0; }));
  }
  CHECK(status_of(lab, "dispatcher1").at("relayed").empty());
}
