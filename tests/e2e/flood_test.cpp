// SPDX-License-Identifier: MIT
// Floods over the wire while downloads run: forged control datagrams from every side, SYNs of clients that there are not.
#include <algorithm>
#include <fstream>
#include <thread>

#include "catch.hpp"
#include "e2e/hostile.hpp"
#include "shared/wire.h"
#include "sys/netns.hpp"

using namespace tcpmig;
using namespace tcpmig::e2e;
using namespace std::string_literals;

namespace {

/// XDP on veth has a ring of 256 packets; what comes quicker is lost before any program sees it.
struct Pace {
  unsigned chunk, share;  ///< of all that are to be sent, one in `share`
};
Pace pace_of(config::Datapath datapath) {
  return datapath == config::Datapath::kXdp ? Pace{100, 10} : Pace{500, 1};
}

bool fetches(const TestLab& lab, const lab::Payload& file, bool ipv6) {
  HttpClient client(lab.netns("client1"), vip(ipv6));
  client.send(get("/" + file.name, "Connection: close\r\n"));
  return lab::sha256_of_bytes(client.receive().body) == file.sha256;
}

/// Sends datagrams until `all` of them have been counted, in pieces that no queue on their way drops; what a busy machine drops all the same
/// is made up for.
template <typename Make, typename Counted>
void spray(const Sprayer& sprayer, Pace pace, unsigned all, Make make, Counted counted) {
  const std::uint64_t wanted = counted() + all / pace.share;
  for (int idle = 0; idle < 10;) {
    const std::uint64_t before = counted();
    if (before >= wanted) return;
    std::uint64_t sent = 0;
    for (std::uint64_t i = std::min<std::uint64_t>(pace.chunk, wanted - before); i > 0; --i)
      sent += sprayer.send(make()) ? 1 : 0;
    lab::wait_until(2s, [&] { return counted() >= before + sent; });
    idle = counted() > before ? 0 : idle + 1;
  }
  INFO(wanted - counted() << " of " << all / pace.share << " are not counted");
  REQUIRE(counted() >= wanted);
}

sys::Endpoint control_port(const TestLab& lab, const std::string& address) {
  return {sys::Address::parse(address).value(), lab->config().control_port};
}

/// COMMIT of the first of two downloads, as the dispatcher sent it, and both.
struct Running {
  explicit Running(const TestLab& lab, const lab::Payload& file)
      : tap(lab, "dispatcher1", abi::WIRE_COMMIT), four(lab, file), six(lab, file, true) {
    REQUIRE(lab::wait_until(10s, [&] { return four.begun() && six.begun(); }));
    commit = payload_of(frame = tap.next(10s));
    REQUIRE(commit.size() > abi::WIRE_HEADER_SIZE);
  }
  ControlTap tap;
  SlowDownload four, six;
  std::string frame, commit;
};

std::string flows(const TestLab& lab) {
  const Output output = run_in(*lab, "switch1", {program().string(), "flows", "--json"});
  REQUIRE(output.code == 0);
  std::string owners;
  for (const auto& row : nlohmann::json::parse(output.out))
    owners += row.value("client", nlohmann::json()).dump() +
              row.value("owner", nlohmann::json()).dump() +
              row.value("generation", nlohmann::json()).dump() + '\n';
  return owners;
}

/// At the switch: of a server's agent with its valid keys about flows of another one, of a dispatcher that says again what it said,
/// of clients.
void flood_switch(const TestLab& lab, const Running& running, Pace pace) {
  std::minstd_rand random(1);
  Forger agent(lab, "server2");
  const auto refused = [&, before = switch_counters(lab)] { return refused_since(lab, before); };
  abi::wire_header real{};
  std::memcpy(&real, running.commit.data(), sizeof real);
  const auto generation = __builtin_bswap32(real.generation);
  const auto of_agent = [&] {
    const std::uint8_t types[] = {abi::WIRE_COMMIT, abi::WIRE_DATA, abi::WIRE_GONE,
                                  abi::WIRE_RENEW};
    const std::string message = agent.message(types[random() % 4], "server2", running.four.local(),
                                              generation + static_cast<unsigned>(random() % 2));
    return random() % 2 != 0 ? message : spoiled(message, random);
  };
  spray(Sprayer(lab, "server2", control_port(lab, "10.0.3.1")), pace, 20'000, of_agent, refused);
  const auto of_dispatcher = [&] {
    return random() % 2 != 0 ? running.commit : spoiled(running.commit, random);
  };
  spray(Sprayer(lab, "dispatcher1", control_port(lab, "10.0.2.1")), pace, 20'000, of_dispatcher,
        refused);
  for (const char* address : {"10.0.2.1", "fd00:2::1"})
    spray(Sprayer(lab, "client1", control_port(lab, address)), pace, 5'000, of_dispatcher, refused);
}

std::uint64_t unheard_by_dispatcher(const TestLab& lab) {
  const auto counters = lab::role_status(*lab, "dispatcher1").at("counters");
  return counters.at("bad_messages").get<std::uint64_t>() +
         counters.at("late_answers").get<std::uint64_t>() +
         counters.at("stale_loads").get<std::uint64_t>();
}

/// At the dispatcher's two sockets: answers to transfers that are over, reports of load, and what is none.
void flood_dispatcher(const TestLab& lab, const Running& running, Pace pace) {
  std::minstd_rand random(2);
  Forger agent(lab, "server2");
  const std::string own = lab->node("dispatcher1").addresses.at(0).str();
  const std::string load = agent.message(abi::WIRE_LOAD, "dispatcher1", running.four.local(), 0);
  const auto counted = [&] { return unheard_by_dispatcher(lab); };
  const auto answer = [&] {
    const std::uint8_t types[] = {abi::WIRE_RESUMED, abi::WIRE_REFUSED, abi::WIRE_ABORTED,
                                  abi::WIRE_MISSING};
    const std::string message =
        agent.message(types[random() % 4], "dispatcher1", running.four.local(), 1);
    return random() % 2 != 0 ? message : spoiled(message, random);
  };
  Sprayer loads(lab, "server2", control_port(lab, own));
  loads.send(load);  // this one is heard
  spray(
      loads, pace, 3'000, [&] { return random() % 2 != 0 ? load : spoiled(load, random); },
      counted);
  spray(Sprayer(lab, "server2", {sys::Address::parse(own).value(), source_port_of(running.frame)}),
        pace, 3'000, answer, counted);
  const auto counters = lab::role_status(*lab, "dispatcher1").at("counters");
  for (const char* name : {"bad_messages", "late_answers", "stale_loads"}) {
    INFO(name);
    CHECK(counters.at(name) > 0);
  }
}

}  // namespace

TEST_CASE("fifty thousand forged control datagrams from every side disturb no download") {
  const auto datapath = GENERATE(config::Datapath::kTc, config::Datapath::kXdp);
  TestLab lab({.servers = 2, .datapath = datapath}, pool_per_server(2));
  if (skipped(lab)) return;
  lab::Payload large = lab.add_file("20m", 20 << 20);
  lab::Payload small = lab.add_file("1k", 1024);
  large.name = "server1/" + large.name;
  small.name = "server1/" + small.name;
  lab.start_server(lab::ServerKind::kNginx, "server1");
  Running running(lab, large);
  INFO(lab.logs());
  REQUIRE(
      lab::wait_until(10s, [&] { return lab::role_number(*lab, "switch1", "committed") == 2; }));
  const std::string owners = flows(lab);
  CHECK(std::count(owners.begin(), owners.end(), '\n') == 2);
  flood_switch(lab, running, pace_of(datapath));
  flood_dispatcher(lab, running, pace_of(datapath));
  CHECK(flows(lab) == owners);
  CHECK(lab::role_number(*lab, "switch1", "committed") == 2);
  CHECK(running.four.complete());
  CHECK(running.six.complete());
  CHECK(fetches(lab, small, false));
  CHECK(fetches(lab, small, true));
  CHECK(lab::wait_until(10s,
                        [&] { return lab::role_number(*lab, "dispatcher1", "transferred") == 4; }));
}

TEST_CASE("a SYN flood: downloads finish, new clients are served by SYN cookies") {
  TestLab lab({.servers = 1});
  if (skipped(lab)) return;
  const lab::Payload large = lab.add_file("20m", 20 << 20);
  const lab::Payload small = lab.add_file("1k", 1024);
  lab.start_server(lab::ServerKind::kNginx, "server1");
  SlowDownload four(lab, large), six(lab, large, true);
  REQUIRE(lab::wait_until(10s, [&] { return four.begun() && six.begun(); }));
  INFO(lab.logs());
  const auto before = switch_counters(lab);
  std::atomic<bool> over = false;
  std::thread flood([&] {
    for (std::uint32_t seed = 1; seed <= 20; ++seed) flood_syns(lab, seed % 2 != 0, 3'000, seed);
    over = true;
  });
  unsigned served = 0;
  for (; !over || served < 4; ++served) CHECK(fetches(lab, small, served % 2 != 0));
  flood.join();
  for (const bool ipv6 : {false, true}) CHECK(fetches(lab, small, ipv6));
  CHECK(four.complete());
  CHECK(six.complete());
  const auto after = switch_counters(lab);
  CHECK(after.at("to_dispatcher") - before.at("to_dispatcher") > 60'000);
  CHECK(netstat(lab, "dispatcher1", "SyncookiesSent") > 0);
  CHECK(lab::wait_until(
      20s, [&] { return lab::role_number(*lab, "dispatcher1", "transferred") == served + 4; }));
}

TEST_CASE("a connection that came by a SYN cookie is moved like any other") {
  TestLab lab({.servers = 1});
  if (skipped(lab)) return;
  const lab::Payload small = lab.add_file("64k", 64 << 10);
  lab.start_server(lab::ServerKind::kNginx, "server1");
  {
    const sys::EnterNetns inside(lab.netns("dispatcher1"));
    std::ofstream("/proc/sys/net/ipv4/tcp_syncookies") << 2;  // always
  }
  INFO(lab.logs());
  for (const bool ipv6 : {false, true}) CHECK(fetches(lab, small, ipv6));
  CHECK(netstat(lab, "dispatcher1", "SyncookiesRecv") == 2);
  CHECK(lab::wait_until(10s,
                        [&] { return lab::role_number(*lab, "dispatcher1", "transferred") == 2; }));
  CHECK(lab::role_number(*lab, "switch1", "committed") == 2);
}

TEST_CASE("a RST, SYN or FIN in the client's window and in its name closes nothing at the switch") {
  TestLab lab({.servers = 1});
  if (skipped(lab)) return;
  const lab::Payload large = lab.add_file("20m", 20 << 20);
  lab.start_server(lab::ServerKind::kNginx, "server1");
  for (const bool ipv6 : {false, true}) {
    INFO((ipv6 ? "v6\n" : "v4\n") << lab.logs());
    SlowDownload download(lab, large, ipv6);
    REQUIRE(lab::wait_until(10s, [&] { return download.begun(); }));
    const auto numbers = numbers_of(lab, download.local());  // of its window probes
    REQUIRE(numbers);
    const auto before = switch_counters(lab);
    for (std::uint32_t ahead = 1; ahead <= 100; ++ahead)
      for (const char flags : "\x04\x14\x02\x11"s)  // RST, RST ACK, SYN, FIN ACK
        send_as_client(lab, download.local(), vip(ipv6), {numbers->seq + ahead * 10, numbers->ack},
                       static_cast<std::uint8_t>(flags));
    REQUIRE(lab::wait_until(5s, [&] {
      const auto now = switch_counters(lab);
      return now.at("syn_live") - before.at("syn_live") >= 100;
    }));
    const auto after = switch_counters(lab);
    CHECK(after.at("closed") == before.at("closed"));
    CHECK(after.at("reopened") == before.at("reopened"));
    CHECK(lab::role_status(*lab, "switch1").at("flows").at("live").get<int>() >= 1);
    CHECK(download.complete());
  }
}
