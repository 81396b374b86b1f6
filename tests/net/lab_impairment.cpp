// SPDX-License-Identifier: MIT
// Bad links of a lab, without any role: what becomes of datagrams that cross one.
#include <arpa/inet.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cstdlib>
#include <fstream>
#include <nlohmann/json.hpp>
#include <set>

#include "catch.hpp"
#include "control/status_socket.hpp"
#include "lab/impair_process.hpp"
#include "lab/plan.hpp"
#include "lab/process.hpp"
#include "lab/state.hpp"
#include "lab/teardown.hpp"
#include "lab/topology.hpp"
#include "sys/check.hpp"
#include "sys/netns.hpp"
#include "sys/role_lock.hpp"

using namespace tcpmig;
using namespace std::chrono_literals;
using Clock = std::chrono::steady_clock;

namespace {

/// Also where its making fails half-way.
struct Removed {
  std::string name;
  ~Removed() { lab::tear_down(name); }
};

/// client1 -- switch1 -- server1, with the process that impairs.
struct BadNetwork {
  explicit BadNetwork(const std::string& spec) {
    lab::Options options{.name = removed.name, .servers = 1};
    options.impairment = lab::parse_impairment(spec);
    plan = lab::make_plan(options);
    lab::write_state({plan.name, true, "", plan.nodes, {}, plan.impairment});
    lab::build_topology(plan);
    for (const char* file :
         {"/proc/sys/net/ipv4/ip_forward", "/proc/sys/net/ipv6/conf/all/forwarding"}) {
      const sys::EnterNetns inside(netns("switch1"));
      std::ofstream(file) << "1";
    }
    const sys::UniqueFd fabric = sys::open_netns(netns("fabric"));
    lab::start({.argv = {std::getenv("TCPMIG_BIN"), "lab", "impair", "--name", plan.name},
                .netns_fd = fabric.get(),
                .own_session = true});
    REQUIRE(lab::wait_until(20s, [&] { return status().has_value(); }));
  }
  [[nodiscard]] std::string netns(const std::string& node) const {
    return lab::netns_name(plan.name, node);
  }
  [[nodiscard]] std::optional<nlohmann::json> status() const {
    return control::query_status(sys::RolePaths{plan.name, "fabric"}.socket(lab::kImpairRole));
  }
  Removed removed{"bad-" + std::to_string(::getpid())};
  lab::Plan plan;
};

sys::UniqueFd udp_socket(const std::string& netns, const sys::Endpoint& at, bool server) {
  const sys::EnterNetns inside(netns);
  const auto [address, length] = at.to_sockaddr();
  sys::UniqueFd fd(sys::check("socket", ::socket(address.ss_family, SOCK_DGRAM | SOCK_CLOEXEC, 0)));
  const int size = 4 << 20;
  ::setsockopt(fd.get(), SOL_SOCKET, SO_RCVBUFFORCE, &size, sizeof size);
  sys::check(
      server ? "bind" : "connect",
      (server ? ::bind : ::connect)(fd.get(), reinterpret_cast<const sockaddr*>(&address), length));
  return fd;
}

/// Numbers that arrive, until nothing has come for a while.
std::vector<std::uint32_t> receive_all(int fd) {
  std::vector<std::uint32_t> numbers;
  for (;;) {
    pollfd waiting{fd, POLLIN, 0};
    if (::poll(&waiting, 1, 1500) <= 0) return numbers;
    std::uint32_t number = 0;
    if (::recv(fd, &number, sizeof number, 0) == sizeof number) numbers.push_back(number);
  }
}

/// Neighbours are known from here on, however often their questions were lost.
void warm_up(int client, int server) {
  REQUIRE(lab::wait_until(20s, [&] {
    const std::uint32_t number = ~0U;
    ::send(client, &number, sizeof number, MSG_DONTWAIT);
    pollfd waiting{server, POLLIN, 0};
    return ::poll(&waiting, 1, 100) > 0;
  }));
  receive_all(server);
}

}  // namespace

TEST_CASE("impaired link: datagrams are lost, doubled and overtaken as often as was asked") {
  const std::string target = GENERATE("10.0.3.2", "fd00:3::2");
  const BadNetwork network("loss=10%,duplicate=5%,reorder=10%,links=server1,seed=3");
  const sys::Endpoint at{sys::Address::parse(target).value(), 4000};
  const sys::UniqueFd server = udp_socket(network.netns("server1"), at, true);
  const sys::UniqueFd client = udp_socket(network.netns("client1"), at, false);
  warm_up(client.get(), server.get());

  constexpr std::uint32_t kCount = 4000;
  for (std::uint32_t i = 0; i < kCount; ++i) {
    REQUIRE(::send(client.get(), &i, sizeof i, 0) == sizeof i);
    if (i % 50 == 0) ::poll(nullptr, 0, 2);  // no burst longer than any queue on the way
  }
  const std::vector<std::uint32_t> numbers = receive_all(server.get());
  const std::set<std::uint32_t> different(numbers.begin(), numbers.end());
  unsigned overtaken = 0;
  std::uint32_t highest = 0;
  for (const std::uint32_t number : numbers) {
    if (number < highest) ++overtaken;
    highest = std::max(highest, number);
  }
  INFO(network.status()->dump(2));
  CHECK(kCount - different.size() > kCount / 20);
  CHECK(kCount - different.size() < kCount / 5);
  CHECK(numbers.size() - different.size() > kCount / 40);
  CHECK(numbers.size() - different.size() < kCount / 10);
  CHECK(overtaken > kCount / 40);

  const auto link = network.status()->at("links").at(0);
  CHECK(link.at("link") == "server1");
  CHECK(link.at("to_node").at("lost").get<unsigned>() >= kCount - different.size());
  CHECK(link.at("to_node").at("not_sent") == 0);
}

TEST_CASE("impaired link: the delay is there and back, in order") {
  const BadNetwork network("delay=40ms,jitter=20ms,links=server1");
  const sys::Endpoint at{sys::Address::parse("10.0.3.2").value(), 4000};
  const sys::UniqueFd server = udp_socket(network.netns("server1"), at, true);
  const sys::UniqueFd client = udp_socket(network.netns("client1"), at, false);
  warm_up(client.get(), server.get());
  const auto begun = Clock::now();
  for (std::uint32_t i = 0; i < 200; ++i)
    REQUIRE(::send(client.get(), &i, sizeof i, 0) == sizeof i);
  pollfd waiting{server.get(), POLLIN, 0};
  REQUIRE(::poll(&waiting, 1, 10'000) == 1);
  CHECK(Clock::now() - begun >= 20ms);
  const std::vector<std::uint32_t> numbers = receive_all(server.get());
  CHECK(numbers.size() == 200);
  CHECK(std::ranges::is_sorted(numbers));

  // a refused connect() is a round trip
  const sys::EnterNetns inside(network.netns("client1"));
  const auto [address, length] = at.to_sockaddr();
  const sys::UniqueFd tcp(::socket(address.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0));
  const auto asked = Clock::now();
  CHECK(::connect(tcp.get(), reinterpret_cast<const sockaddr*>(&address), length) < 0);
  CHECK(errno == ECONNREFUSED);
  CHECK(Clock::now() - asked >= 40ms);
}
