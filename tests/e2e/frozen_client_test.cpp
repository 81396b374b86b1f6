// SPDX-License-Identifier: MIT
// A client ends its direction, or the connection, exactly while the connection is frozen and nobody has heard of its transfer.
#include <arpa/inet.h>

#include "catch.hpp"
#include "e2e/outage.hpp"
#include "e2e/traffic.hpp"
#include "shared/switch_maps.h"
#include "switch/sweep.hpp"
#include "sys/bpf.hpp"

using namespace tcpmig;
using namespace tcpmig::e2e;

namespace {

constexpr std::chrono::seconds kBound{30};  // the machine may be busy

std::string times(const std::string& transfer) {
  return pool_per_server(
      1,
      "[[pool]]\nname = \"posts\"\nservers = [{ node = \"server1\", port = 8080 }]\n"
      "[[service.route]]\nprefix = \"/posts\"\npool = \"posts\"\n"
      "[timeouts]\nhead = \"60s\"\nclosing = \"2s\"\nscan = \"500ms\"\n"
      "tombstone = \"" +
          transfer + "\"\ntransfer = \"" + transfer + "\"\n");
}

/// Not every server answers a client that has ended its direction: these do.
void start_servers(TestLab& lab) {
  lab.start_server(lab::ServerKind::kPython, "server1");
  lab.start_server(lab::ServerKind::kNode, "server1", 8080);
}

struct Request {
  const char* name;
  std::string text;
  std::string answer;  ///< its body
};

std::vector<Request> requests(const std::string& file) {
  const std::string posted = lab::sha256_of_bytes("body") + "\n";
  return {{"GET", get("/server1/1k"), file},
          {"a GET of several parts", get("/server1/1k", long_head()), file},
          {"POST", post("/posts", "body"), posted},
          {"a POST of several parts", post("/posts", "body", long_head()), posted}};
}

/// A client that is frozen: the switch has not heard of its transfer, and will not before end().
class FrozenClient {
 public:
  FrozenClient(const TestLab& lab, bool ipv6, const Request& request)
      : client(lab.netns("client1"), vip(ipv6)),
        local(client.local()),
        lab_(lab),
        committed_(of_switch("committed")),
        lost_(lab, "dispatcher1") {
    client.send(request.text);
    REQUIRE(lab::wait_until(10s, [&] { return of_dispatcher(lab, "in_transfer") == 1; }));
  }
  /// `act` of the client reaches the frozen socket.
  void act(const std::function<void()>& act) const {
    const auto before = of_switch("to_dispatcher");
    act();
    REQUIRE(lab::wait_until(5s, [&] { return of_switch("to_dispatcher") > before; }));
    CHECK(of_switch("committed") == committed_);
    CHECK(of_dispatcher(lab_, "in_transfer") == 1);
  }
  /// Transfers are heard of again.
  void end() { lost_.end(); }
  [[nodiscard]] bool has_moved() const { return of_switch("committed") == committed_ + 1; }

  HttpClient client;
  sys::Endpoint local;

 private:
  [[nodiscard]] std::uint64_t of_switch(const std::string& name) const {
    return number_of(lab_, "switch1", name);
  }
  const TestLab& lab_;
  std::uint64_t committed_;
  LostTransfers lost_;
};

/// Flows at the switch that are neither closing nor over, in words.
std::string live_flows(const TestLab& lab) {
  const sys::UniqueFd flows =
      std::move(*sys::PinDirectory(lab->config().paths("switch1").pins("switch")).open("flows"));
  std::string live;
  sys::map_for_each<abi::flow_key, abi::flow_value>(
      flows.get(), [&](const abi::flow_key& key, const abi::flow_value& flow) {
        if (flow.owner.is.owner != 0 && !steering::is_closing(flow))
          live += sys::Endpoint{sys::Address(key.client), ntohs(key.client_port)}.str() +
                  " is node " + std::to_string(flow.owner.is.owner) + "'s\n";
      });
  return live;
}

/// Neither the dispatcher nor the server has anything of it any more.
void check_released(const TestLab& lab, const sys::Endpoint& client) {
  CHECK(lab::wait_until(kBound, [&] { return of_dispatcher(lab, "in_transfer") == 0; }));
  for (const std::string node : {"dispatcher1", "server1"}) {
    INFO(node << '\n' << run_in(*lab, node, {"ss", "-Htan"}).out);
    CHECK(lab::wait_until(kBound, [&] { return sockets_of(lab, node, client) == 0; }));
  }
}

/// The switch has nothing of any. A server's socket that has ended before its agent has seen it was refused by this one: what it is then
/// (GONE) it says when the tombstone goes, after timeouts.tombstone and all repeats.
void check_closed(const TestLab& lab) {
  lab::wait_until(kBound, [&] { return live_flows(lab).empty(); });
  CHECK(live_flows(lab).empty());
}

}  // namespace

TEST_CASE(
    "a FIN of the client while its connection is frozen and not committed: it gets its answer") {
  TestLab lab({.servers = 1}, times("5s"));
  if (skipped(lab)) return;
  const lab::Payload small = lab.add_file("1k", 1024);
  start_servers(lab);
  for (const bool ipv6 : {false, true})
    for (const Request& request : requests(read_file(lab.documents() / small.name))) {
      INFO(request.name << (ipv6 ? ", v6\n" : ", v4\n") << lab.logs());
      FrozenClient frozen(lab, ipv6, request);
      frozen.act([&] { frozen.client.half_close(); });
      frozen.end();
      const bool right = frozen.client.receive().body == request.answer;
      CHECK(right);
      CHECK(frozen.has_moved());
      CHECK(frozen.client.closed_within(kBound));  // the server has heard that nothing will come
      check_released(lab, frozen.local);
    }
  check_closed(lab);
  CHECK(of_dispatcher(lab, "captures_without_transfer") == 0);
}

TEST_CASE("a RST of the client while its connection is frozen and not committed: all is released") {
  TestLab lab({.servers = 1}, times("5s"));
  if (skipped(lab)) return;
  lab.add_file("1k", 1024);
  start_servers(lab);
  for (const bool ipv6 : {false, true})
    for (const Request& request : requests({})) {
      INFO(request.name << (ipv6 ? ", v6\n" : ", v4\n") << lab.logs());
      FrozenClient frozen(lab, ipv6, request);
      frozen.act([&] { frozen.client.reset(); });
      frozen.end();
      check_released(lab, frozen.local);
      CHECK(frozen.has_moved());
    }
  check_closed(lab);
}

TEST_CASE(
    "a FIN or a RST of the client while its connection is frozen, and its transfer never heard "
    "of") {
  TestLab lab({.servers = 1}, times("1s"));
  if (skipped(lab)) return;
  const lab::Payload small = lab.add_file("1k", 1024);
  start_servers(lab);
  for (const bool ipv6 : {false, true})
    for (const Request& request : requests(read_file(lab.documents() / small.name))) {
      if (request.text.size() < 5'000) continue;  // each takes seconds
      for (const bool fin : {true, false}) {
        INFO(request.name << (fin ? ", FIN" : ", RST") << (ipv6 ? ", v6\n" : ", v4\n")
                          << lab.logs());
        const auto answered = own_answers(lab, "504");
        FrozenClient frozen(lab, ipv6, request);
        frozen.act([&] { fin ? frozen.client.half_close() : frozen.client.reset(); });
        if (fin) {
          const Response response = frozen.client.receive();
          if (request.text.starts_with("POST")) {  // nobody can know that it never arrived
            CHECK(response.status == 504);
            CHECK(own_answers(lab, "504") == answered + 1);
          } else {  // relayed
            const bool right = response.body == request.answer;
            CHECK(right);
          }
          CHECK(frozen.client.closed_within(kBound));
        }
        check_released(lab, frozen.local);
        CHECK_FALSE(frozen.has_moved());
      }
    }
  check_closed(lab);
}
