// SPDX-License-Identifier: MIT
// What a client with raw sockets, or somebody who has recorded our datagrams, can do to a download
// that runs: nothing; and all of it is counted.
#include "catch.hpp"
#include "e2e/traffic.hpp"
#include "shared/wire.h"

using namespace tcpmig;
using namespace tcpmig::e2e;

namespace {

void check_spoofs(const TestLab& lab, const sys::Endpoint& client) {
  const bool ipv4 = client.address.is_ipv4();
  const config::Config& config = lab->config();
  const auto own = [&](const std::string& node) {
    return lab->node(node).addresses.at(ipv4 ? 0 : 1);
  };
  const auto server = config.find_node("server1")->id;
  const sys::Endpoint vpa{ipv4 ? config::vpa4(config, server, 1) : config::vpa6(config, server, 1),
                          80};
  check_drop(lab, "drop_vpa_source",  // the server's voice
             [&] { send_forged_reset(lab, "client1", vpa, {own("dispatcher1"), client.port}); });
  check_drop(lab, "drop_vip_source",
             [&] { send_forged_reset(lab, "client1", vip(!ipv4), {own("server1"), client.port}); });
  check_drop(lab, "drop_to_vpa",  // past the service, on the ports of the download
             [&] { send_forged_reset(lab, "client1", client, vpa); });
  for (const std::string node : {"server1", "dispatcher1"})
    check_drop(lab, "drop_control_from_clients", [&] {
      send_forged_datagram(lab, "client1", {own("dispatcher1"), 4000},
                           {own(node), config.control_port}, std::string(128, 'x'));
    });
}

}  // namespace

TEST_CASE("forged packets during a download are dropped and counted, the download is intact") {
  const auto datapath = GENERATE(config::Datapath::kTc, config::Datapath::kXdp);
  TestLab lab({.servers = 1, .datapath = datapath});
  if (skipped(lab)) return;
  const lab::Payload large = lab.add_file("20m", 20 << 20);
  lab.start_server(lab::ServerKind::kNginx, "server1");
  for (const bool ipv6 : {false, true}) {
    INFO((ipv6 ? "v6\n" : "v4\n") << lab.logs());
    SlowDownload download(lab, large, ipv6);
    REQUIRE(lab::wait_until(5s, [&] { return download.begun(); }));
    check_spoofs(lab, download.local());
    CHECK(download.complete());
  }
}

TEST_CASE("a COMMIT that is sent once more is counted and changes nothing") {
  const auto datapath = GENERATE(config::Datapath::kTc, config::Datapath::kXdp);
  TestLab lab({.servers = 1, .datapath = datapath});
  if (skipped(lab)) return;
  const lab::Payload large = lab.add_file("20m", 20 << 20);
  const lab::Payload small = lab.add_file("1k", 1024);
  lab.start_server(lab::ServerKind::kNginx, "server1");
  ControlTap tap(lab, "dispatcher1", abi::WIRE_COMMIT);
  SlowDownload download(lab, large);
  REQUIRE(lab::wait_until(5s, [&] { return download.begun(); }));
  const std::string commit = tap.next(5s);
  REQUIRE_FALSE(commit.empty());

  INFO(lab.logs());
  const auto count = [&](const char* name) { return lab::role_number(*lab, "switch1", name); };
  const auto committed = count("committed");
  const auto replayed = count("refused_replay");
  for (unsigned i = 1; i <= 3; ++i) {
    tap.replay(commit);
    CHECK(lab::wait_until(3s, [&] { return count("refused_replay") == replayed + i; }));
  }
  CHECK(count("committed") == committed);
  CHECK(download.complete());
  SlowDownload next(lab, small);
  CHECK(next.complete());
}
