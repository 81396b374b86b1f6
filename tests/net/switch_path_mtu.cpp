// SPDX-License-Identifier: MIT
// A flow whose owner is behind a smaller MTU than the dispatcher that began it: the client is told.
#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include <array>
#include <future>

#include "catch.hpp"
#include "shared/flow.h"
#include "switch/sweep.hpp"
#include "switch/switch.hpp"
#include "switch_world.hpp"
#include "sys/bpf.hpp"
#include "sys/check.hpp"

using namespace tcpmig;
using switch_test::down;
using switch_test::up;
using switch_test::World;

namespace {

constexpr std::uint16_t kClientPort = 40001;
constexpr std::uint32_t kSmall = 1400;

struct Family {
  int domain;
  const char *client, *vip;
};
constexpr Family kFamilies[] = {{AF_INET, "10.0.1.2", "203.0.113.10"},
                                {AF_INET6, "fd00:1::2", "2001:db8:113::10"}};

sys::Address address(const char* text) { return sys::Address::parse(text).value(); }

/// The client in a namespace of its own: eth0's peer moves there.
class Client {
 public:
  explicit Client(const World& world) : name_(world.file.cluster + "-client") {
    sys::create_netns(name_);
    const sys::UniqueFd there = sys::open_netns(name_);
    {
      const sys::EnterNetns peers(world.peer_netns());
      sys::Netlink().move_link("peer0", there.get());
    }
    const sys::EnterNetns inside(name_);
    switch_test::output_of(
        "ip link set peer0 up; ip addr add 10.0.1.2/24 dev peer0; ip addr add fd00:1::2/64 dev "
        "peer0 nodad; ip route add default via 10.0.1.1; ip -6 route add default via fd00:1::1");
  }
  ~Client() { sys::remove_netns(name_); }
  Client(const Client&) = delete;
  Client& operator=(const Client&) = delete;
  [[nodiscard]] const std::string& netns() const { return name_; }

 private:
  std::string name_;
};

/// Server s1: takes its block in, and names the segment size that a dispatcher would have named.
void make_server(const World& world) {
  const sys::EnterNetns inside(world.peer_netns());
  switch_test::output_of(
      "ip link set peer2 mtu 1400; ip addr add 10.0.3.2/24 dev peer2; ip addr add fd00:3::2/64 dev "
      "peer2 nodad; ip route add local 100.89.64.0/18 dev lo; ip -6 route add local fd7c::65:0/112 "
      "dev lo; ip route add default via 10.0.3.1 advmss 1460; ip -6 route add default via "
      "fd00:3::1 advmss 1440");
}

void give_to_server(const World& world, const Family& family) {
  abi::flow_key key{};
  key.client = address(family.client).raw();
  key.vip = address(family.vip).raw();
  key.client_port = htons(kClientPort);
  key.vip_port = htons(80);
  key.family = family.domain == AF_INET ? abi::FAMILY_IPV4 : abi::FAMILY_IPV6;
  abi::flow_value value{};
  value.owner.is.owner = 101;
  value.owner.is.port = 80;
  value.owner.is.generation = 5;
  value.owner.is.spoke = 1;
  value.service = 7;
  value.last_seen_ns = value.committed_ns = steering::monotonic_ns();
  sys::map_update(world.map("flows").get(), key, value);
}

sys::UniqueFd bound_socket(const std::string& netns, const sys::Endpoint& at) {
  const sys::EnterNetns inside(netns);
  const auto [storage, length] = at.to_sockaddr();
  sys::UniqueFd fd(
      sys::check("socket", ::socket(storage.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0)));
  const timeval deadline{10, 0};
  ::setsockopt(fd.get(), SOL_SOCKET, SO_RCVTIMEO, &deadline, sizeof deadline);
  ::setsockopt(fd.get(), SOL_SOCKET, SO_SNDTIMEO, &deadline, sizeof deadline);
  sys::check("bind", ::bind(fd.get(), reinterpret_cast<const sockaddr*>(&storage), length));
  return fd;
}

std::size_t receive_all(int fd, std::size_t wanted) {
  std::array<char, 65536> block{};
  std::size_t done = 0;
  while (done < wanted) {
    const auto n = ::recv(fd, block.data(), block.size(), 0);
    if (n <= 0) break;
    done += static_cast<std::size_t>(n);
  }
  return done;
}

}  // namespace

TEST_CASE("switch: a client hears that its packets are too big for the owner's route") {
  if (switch_test::cannot_run_here()) return;
  const Family family = kFamilies[GENERATE(0, 1)];
  INFO(family.vip);
  World world;
  world.file.datapath = "tc";
  sys::Netlink().set_link("eth2", true, kSmall);
  const Client client(world);
  make_server(world);
  up(world);
  give_to_server(world, family);

  const bool v4 = family.domain == AF_INET;
  const sys::UniqueFd listener =
      bound_socket(world.peer_netns(), {address(v4 ? "0.0.0.0" : "::"), 80});
  sys::check("listen", ::listen(listener.get(), 1));
  const sys::UniqueFd socket = bound_socket(client.netns(), {address(family.client), kClientPort});
  const auto [vip, length] = sys::Endpoint{address(family.vip), 80}.to_sockaddr();
  sys::check("connect", ::connect(socket.get(), reinterpret_cast<const sockaddr*>(&vip), length));
  const sys::UniqueFd server(
      sys::check("accept", ::accept4(listener.get(), nullptr, nullptr, SOCK_CLOEXEC)));

  const std::string bytes(200'000, 'x');
  auto sent = std::async(std::launch::async, [&] {
    return ::send(socket.get(), bytes.data(), bytes.size(), MSG_NOSIGNAL);
  });
  CHECK(receive_all(server.get(), bytes.size()) == bytes.size());
  CHECK(sent.get() == static_cast<ssize_t>(bytes.size()));
  int path_mtu = 0;
  socklen_t size = sizeof path_mtu;
  REQUIRE(::getsockopt(socket.get(), v4 ? int{IPPROTO_IP} : int{IPPROTO_IPV6},
                       v4 ? int{IP_MTU} : int{IPV6_MTU}, &path_mtu, &size) == 0);
  CHECK(path_mtu == kSmall);
}

TEST_CASE("switch: the route of a VIP is as narrow as the narrowest way to a node") {
  if (switch_test::cannot_run_here()) return;
  World world;
  const auto route = [] { return switch_test::output_of("ip route show 203.0.113.10"); };
  up(world);
  CHECK(route().find("mtu") == std::string::npos);
  sys::Netlink().set_link("eth2", true, kSmall);
  up(world);  // an existing route is replaced
  CHECK(route().find("mtu lock 1400") != std::string::npos);
  CHECK(switch_test::output_of("ip -6 route show 2001:db8:113::10").find("mtu lock 1400") !=
        std::string::npos);
  // a node's own route may be narrower than its interface; its VPA block goes the same way
  switch_test::output_of("ip route add 10.0.3.2/32 dev eth2 mtu 1350");
  up(world);
  CHECK(route().find("mtu lock 1350") != std::string::npos);
  CHECK(switch_test::output_of("ip route show 100.89.64.0/18").find("mtu lock 1350") !=
        std::string::npos);
  down(world);
  CHECK(route().empty());
}
