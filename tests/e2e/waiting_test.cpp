// SPDX-License-Identifier: MIT
// Clients that have connected and say nothing.
#include <sys/resource.h>
#include <sys/socket.h>

#include <fstream>

#include "catch.hpp"
#include "e2e/support.hpp"
#include "sys/check.hpp"
#include "sys/netns.hpp"

using namespace tcpmig;
using namespace tcpmig::e2e;

namespace {

/// Connections that only exist.
std::vector<sys::UniqueFd> connect_many(const TestLab& lab, std::size_t count) {
  std::vector<sys::UniqueFd> connections;
  const sys::EnterNetns inside(lab.netns("client1"));
  for (std::size_t i = 0; i < count; ++i) {
    const auto [address, length] = vip(i % 2 != 0).to_sockaddr();
    sys::UniqueFd fd(
        sys::check("socket", ::socket(address.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0)));
    sys::check("connect", ::connect(fd.get(), reinterpret_cast<const sockaddr*>(&address), length));
    connections.push_back(std::move(fd));
  }
  return connections;
}

void send_text(const sys::UniqueFd& fd, const std::string& text) {
  CHECK(::send(fd.get(), text.data(), text.size(), MSG_NOSIGNAL) ==
        static_cast<ssize_t>(text.size()));
}

/// Memory of the dispatcher.
std::size_t resident_kb(const TestLab& lab) {
  std::ifstream file("/proc/" + std::to_string(lab.role_pid("dispatcher1")) + "/status");
  for (std::string word; file >> word;)
    if (word == "VmRSS:" && file >> word) return std::stoul(word);
  throw std::runtime_error("no VmRSS");
}

std::uint64_t of_dispatcher(const TestLab& lab, const std::string& name) {
  return lab::find_number(lab::role_status(*lab, "dispatcher1"), name).value_or(0);
}

}  // namespace

TEST_CASE("ten thousand with half a head: a new one is served at once, they end with 408") {
  rlimit limit{};
  REQUIRE(::getrlimit(RLIMIT_NOFILE, &limit) == 0);
  limit.rlim_cur = limit.rlim_max;
  REQUIRE(::setrlimit(RLIMIT_NOFILE, &limit) == 0);
  const std::size_t wanted = std::min<std::size_t>(10'000, limit.rlim_max - 200);
  TestLab lab({.servers = 1}, pool_per_server(1, "[timeouts]\nhead = \"15s\"\n"));
  if (skipped(lab)) return;
  const lab::Payload file = lab.add_file("1k", 1024);
  lab.start_server(lab::ServerKind::kNginx, "server1");
  const std::size_t memory = resident_kb(lab);
  std::vector<sys::UniqueFd> slow = connect_many(lab, wanted);
  for (const sys::UniqueFd& fd : slow) send_text(fd, "GET /server1/1k HTTP/1.1\r\nHo");
  INFO(lab.logs());
  CHECK(lab::wait_until(10s, [&] { return of_dispatcher(lab, "waiting") == wanted; }));
  for (const bool ipv6 : {false, true}) {
    HttpClient client(lab.netns("client1"), vip(ipv6));
    client.send(get("/server1/1k", "Connection: close\r\n"));
    CHECK(lab::sha256_of_bytes(client.receive().body) == file.sha256);
  }
  send_text(slow.back(), "st: x\r\nConnection: close\r\n\r\n");
  CHECK(lab::wait_until(5s, [&] { return of_dispatcher(lab, "transferred") == 3; }));
  CHECK(resident_kb(lab) < memory + wanted * 16);  // 16 KB each, and a sanitizer's share in it
  slow.pop_back();
  CHECK(lab::wait_until(40s, [&] { return of_dispatcher(lab, "408") == wanted - 1; }));
  CHECK(of_dispatcher(lab, "waiting") == 0);
  char answer[13]{};
  CHECK(::recv(slow.front().get(), answer, 12, MSG_WAITALL) == 12);
  CHECK(std::string(answer) == "HTTP/1.1 408");
}

TEST_CASE("more than limits.waiting: the next is turned away with 503") {
  TestLab lab({.servers = 1}, pool_per_server(1, "[limits]\nwaiting = 10\n"));
  const std::vector<sys::UniqueFd> idle = connect_many(lab, 10);
  CHECK(lab::wait_until(5s, [&] { return of_dispatcher(lab, "waiting") == 10; }));
  HttpClient client(lab.netns("client1"), vip(false));
  CHECK(client.receive().status == 503);
  CHECK(of_dispatcher(lab, "turned_away_waiting_full") == 1);
}
