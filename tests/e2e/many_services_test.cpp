// SPDX-License-Identifier: MIT
// More services than there are descriptors for a listener in every event loop.
#include <sys/resource.h>

#include <sstream>

#include "catch.hpp"
#include "e2e/support.hpp"

using namespace tcpmig;
using namespace tcpmig::e2e;

namespace {

constexpr unsigned kServices = 60, kLoops = 2;

sys::Endpoint vip_of(unsigned service, bool ipv6) {
  const std::string number = std::to_string(service);
  return {sys::Address::parse((ipv6 ? "2001:db8:114::" : "198.51.100.") + number).value(), 80};
}

std::string services() {
  std::string text = "[[pool]]\nname = \"web\"\nservers = [{ node = \"server1\", port = 80 }]\n";
  for (unsigned i = 1; i <= kServices; ++i)
    text += "[[service]]\nname = \"s" + std::to_string(i) + "\"\nid = " + std::to_string(i) +
            "\nvip4 = \"" + vip_of(i, false).address.str() + "\"\nvip6 = \"" +
            vip_of(i, true).address.str() +
            "\"\nport = 80\nprotocol = \"http\"\n[[service.route]]\nprefix = \"/\"\npool = "
            "\"web\"\n";
  return text;
}

/// TCP listeners of the dispatcher's node, by the kernel.
std::size_t listeners(const TestLab& lab) {
  std::size_t count = 0;
  for (const char* table : {"/proc/net/tcp", "/proc/net/tcp6"}) {
    std::istringstream lines(run_in(*lab, "dispatcher1", {"cat", table}).out);
    for (std::string line; std::getline(lines, line);)
      count += line.find(" 0A ") != std::string::npos;
  }
  return count;
}

}  // namespace

TEST_CASE("more services than descriptors: each is listened to by one event loop, and served") {
  const rlimit few{2 * kServices * kLoops, 2 * kServices * kLoops};  // the roles inherit it
  REQUIRE(::setrlimit(RLIMIT_NOFILE, &few) == 0);
  TestLab lab({.servers = 1}, services());
  if (skipped(lab)) return;
  const lab::Payload file = lab.add_file("1k", 1024);
  lab.start_server(lab::ServerKind::kNginx, "server1");
  INFO(lab.logs());
  CHECK(listeners(lab) == 2 * kServices);
  for (unsigned i = 1; i <= kServices; ++i) {
    HttpClient client(lab.netns("client1"), vip_of(i, i % 2 == 0));
    client.send(get("/1k", "Connection: close\r\n"));
    CHECK(lab::sha256_of_bytes(client.receive().body) == file.sha256);
  }
  CHECK(lab::wait_until(
      5s, [&] { return lab::role_number(*lab, "dispatcher1", "transferred") == kServices; }));
}
