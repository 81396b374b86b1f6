// SPDX-License-Identifier: MIT
// What the dispatcher answers itself, and what the switch drops: each with its counter, and no
// other flow the worse for it.
#include <sys/socket.h>

#include "catch.hpp"
#include "e2e/traffic.hpp"
#include "shared/wire.h"
#include "sys/check.hpp"
#include "sys/netns.hpp"

using namespace tcpmig;
using namespace tcpmig::e2e;
using namespace std::string_literals;

namespace {

Response ask(const TestLab& lab, const std::string& bytes) {
  HttpClient client(lab.netns("client1"), vip(false));
  client.send(bytes);
  Response response = client.receive();
  CHECK(client.closed_within(2s));
  return response;
}

bool fetches(const TestLab& lab, const lab::Payload& file, bool ipv6) {
  HttpClient client(lab.netns("client1"), vip(ipv6));
  client.send(get("/" + file.name, "Connection: close\r\n"));
  return lab::sha256_of_bytes(client.receive().body) == file.sha256;
}

void send_datagram(const TestLab& lab, const sys::Endpoint& to, std::string_view bytes) {
  const auto [address, length] = to.to_sockaddr();
  const sys::EnterNetns inside(lab.netns("client1"));
  const sys::UniqueFd fd(
      sys::check("socket", ::socket(address.ss_family, SOCK_DGRAM | SOCK_CLOEXEC, 0)));
  sys::check("sendto", ::sendto(fd.get(), bytes.data(), bytes.size(), 0,
                                reinterpret_cast<const sockaddr*>(&address), length));
}

/// Sends a SYN and does not wait for anything.
sys::UniqueFd send_syn(const TestLab& lab, const sys::Endpoint& to) {
  const auto [address, length] = to.to_sockaddr();
  const sys::EnterNetns inside(lab.netns("client1"));
  sys::UniqueFd fd(sys::check(
      "socket", ::socket(address.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0)));
  if (::connect(fd.get(), reinterpret_cast<const sockaddr*>(&address), length) != 0)
    REQUIRE(errno == EINPROGRESS);
  return fd;
}

/// How often the dispatcher has answered so, by its own count.
std::uint64_t answers(const TestLab& lab, const std::string& status) {
  return lab::role_status(*lab, "dispatcher1").at("answers").value(status, std::uint64_t{0});
}

}  // namespace

TEST_CASE("requests that are answered by the dispatcher: 400, 404, 408, 431, 503") {
  TestLab lab({.servers = 1},
              pool_per_server(1, "\n[timeouts]\nclosing = \"2s\"\nhead = \"1s\"\n"));
  const lab::Payload file = lab.add_file("1k", 1024);
  INFO(lab.logs());

  SECTION("malformed") {
    unsigned asked = 0;
    for (const std::string& bad : {
             "garbage\r\n\r\n"s,
             "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03zzzzzzzzzzzzzzzzzzzzz"s,  // TLS
                                                                                    // ClientHello
             "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"s,  // HTTP/2 preface
             "GET / HTTP/1.1\r\n\r\n"s,            // no Host
             "GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n"s,
             "GET / HTTP/1.1\r\nHost: a\r\n folded\r\n\r\n"s,
             "GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 5, 5\r\n\r\nhello"s,
             "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nTransfer-Encoding: "s
             "chunked\r\n\r\n0\r\n\r\n"s,
             "POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"s,
         }) {
      INFO(bad);
      CHECK(ask(lab, bad).status == 400);
      CHECK(answers(lab, "400") == ++asked);
    }
  }
  SECTION("no route") {
    CHECK(ask(lab, get("/nowhere")).status == 404);
    CHECK(answers(lab, "404") == 1);
  }
  SECTION("too slow") {
    CHECK(ask(lab, "GET /server1/1k HTTP/1.1\r\nHost").status == 408);
    CHECK(ask(lab, "").status == 408);
    CHECK(answers(lab, "408") == 2);
  }
  SECTION("head too large") {
    CHECK(ask(lab, get("/server1/1k", "X: " + std::string(70'000, 'x') + "\r\n")).status == 431);
    CHECK(answers(lab, "431") == 1);
  }
  SECTION("no server") {
    CHECK(ask(lab, get("/server1/1k")).status == 503);
    CHECK(answers(lab, "503") == 1);
  }

  lab.start_server(lab::ServerKind::kMiniHttpd, "server1");
  if (!skipped(lab)) {
    HttpClient client(lab.netns("client1"), vip(false));
    client.send(get("/server1/1k"));
    CHECK(lab::sha256_of_bytes(client.receive().body) == file.sha256);
  }
}

TEST_CASE("a server that is down: the next one answers. All down: 503") {
  TestLab lab({.servers = 3});
  if (skipped(lab)) return;
  const lab::Payload file = lab.add_file("1k", 1024);
  lab.start_server(lab::ServerKind::kNginx, "server1");
  lab.start_server(lab::ServerKind::kNginx, "server3");
  for (int request = 0; request < 12; ++request) {  // server2 never listened
    INFO(lab.logs());
    CHECK(fetches(lab, file, request % 2 != 0));
  }
  lab.stop_server("server1");
  for (int request = 0; request < 6; ++request) CHECK(fetches(lab, file, request % 2 != 0));
  lab.stop_server("server3");
  CHECK(ask(lab, get("/1k")).status == 503);
  lab.start_server(lab::ServerKind::kNginx, "server2");
  CHECK(fetches(lab, file, false));
}

TEST_CASE("what clients must not send is dropped and counted") {
  const auto datapath = GENERATE(config::Datapath::kTc, config::Datapath::kXdp);
  TestLab lab({.servers = 1, .datapath = datapath});
  const bool can_resume = !skipped(lab);
  const lab::Payload file = lab.add_file("1k", 1024);
  lab.start_server(lab::ServerKind::kNginx, "server1");
  const auto& config = lab->config();
  const auto server = config.find_node("server1")->id;
  const auto dispatcher = config.find_node("dispatcher1")->id;

  for (const auto node : {server, dispatcher}) {
    check_drop(lab, "drop_to_vpa", [&] { send_syn(lab, {config::vpa4(config, node, 1), 80}); });
    check_drop(lab, "drop_to_vpa", [&] { send_syn(lab, {config::vpa6(config, node, 1), 80}); });
  }
  std::vector<sys::Address> control;  // of the switch: its addresses on the nodes' side
  for (const sys::Address& address : lab->node("switch1").addresses)
    if (!address.str().starts_with("10.0.1.") && !address.str().starts_with("fd00:1:"))
      control.push_back(address);
  for (const std::string node : {"server1", "dispatcher1"})
    for (const sys::Address& address : lab->node(node).addresses) control.push_back(address);
  for (const sys::Address& address : control)
    check_drop(lab, "drop_control_from_clients",
               [&] { send_datagram(lab, {address, config.control_port}, std::string(128, 'x')); });
  check_drop(lab, "drop_no_service", [&] { send_syn(lab, vip(false, 81)); });
  check_drop(lab, "drop_no_service", [&] { send_syn(lab, vip(true, 81)); });
  check_drop(lab, "drop_not_tcp", [&] { send_datagram(lab, vip(false, 80), "hello"); });
  if (can_resume)
    for (const bool ipv6 : {false, true}) CHECK(fetches(lab, file, ipv6));
}

TEST_CASE("a forged COMMIT on the nodes' side is dropped and counted") {
  TestLab lab({.servers = 1});
  const auto before = lab::role_number(*lab, "switch1", "drop_bad_tag");
  const auto malformed = lab::role_number(*lab, "switch1", "drop_bad_message");
  abi::wire_header header{};
  header.magic = __builtin_bswap32(abi::WIRE_MAGIC);
  header.version = abi::WIRE_VERSION;
  header.type = abi::WIRE_COMMIT;
  header.key_id = 1;
  header.family = abi::FAMILY_IPV4;
  header.sender = __builtin_bswap16(101);
  header.target = __builtin_bswap16(102);
  header.service = __builtin_bswap16(1);
  header.sequence = __builtin_bswap64(1ULL << 62);
  header.parts = __builtin_bswap16(1);
  const auto send_from_server = [&](std::size_t size) {
    const auto [address, length] =
        sys::Endpoint{sys::Address::parse("10.0.3.1").value(), lab->config().control_port}
            .to_sockaddr();
    const sys::EnterNetns inside(lab.netns("server1"));
    const sys::UniqueFd fd(sys::check("socket", ::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0)));
    sys::check("sendto", ::sendto(fd.get(), &header, size, 0,
                                  reinterpret_cast<const sockaddr*>(&address), length));
  };
  send_from_server(sizeof header);
  CHECK(lab::wait_until(
      3s, [&] { return lab::role_number(*lab, "switch1", "drop_bad_tag") == before + 1; }));
  const auto bad_messages = [&] {
    return lab::role_number(*lab, "switch1", "drop_bad_message") - malformed;
  };
  send_from_server(40);
  CHECK(lab::wait_until(3s, [&] { return bad_messages() == 1; }));
  header.sender = __builtin_bswap16(1);  // the dispatcher is behind another interface
  send_from_server(sizeof header);
  CHECK(lab::wait_until(3s, [&] { return bad_messages() == 2; }));
  CHECK(lab::role_number(*lab, "switch1", "committed") == 0);
}

TEST_CASE("clients that go away in every phase leak nothing") {
  TestLab lab({.servers = 1});
  if (skipped(lab)) return;
  const lab::Payload file = lab.add_file("1k", 1024);
  lab.add_file("1m", 1 << 20);
  lab.start_server(lab::ServerKind::kNginx, "server1");
  const auto descriptors = [&] {
    const auto pid = std::to_string(lab.role_pid("dispatcher1"));
    std::size_t count = 0;
    for ([[maybe_unused]] const auto& entry :
         std::filesystem::directory_iterator("/proc/" + pid + "/fd"))
      ++count;
    return count;
  };
  CHECK(fetches(lab, file, false));
  REQUIRE(lab::wait_until(5s, [&] { return lab::role_number(*lab, "switch1", "committed") == 1; }));
  std::size_t quiet = descriptors();
  lab::wait_until(5s, [&] { return std::exchange(quiet, descriptors()) == quiet; }, 500ms);
  for (int i = 0; i < 100; ++i) {
    HttpClient silent(lab.netns("client1"), vip(i % 2 != 0));
    HttpClient half(lab.netns("client1"), vip(i % 2 != 0));
    half.send("GET /1k HTTP/1.1\r\nHo");
    half.reset();
    HttpClient full(lab.netns("client1"), vip(i % 2 != 0));
    full.send(get("/1m"));
    full.reset();
  }
  INFO(lab.logs());
  CHECK(lab::wait_until(15s, [&] { return descriptors() <= quiet; }, 100ms));
  CHECK(fetches(lab, file, true));
}
