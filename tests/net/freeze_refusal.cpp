// SPDX-License-Identifier: MIT
// What cannot be carried is refused with a reason, and everything is given back.
#include <linux/tcp.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include <cstring>
#include <iostream>

#include <tcpmig/freeze.hpp>

#include "catch.hpp"
#include "conn_world.hpp"
#include "sys/check.hpp"

using namespace conn_test;
using Catch::Matchers::Contains;
using tcpmig::FreezeKit;
using tcpmig::sys::check;
using tcpmig::sys::UniqueFd;

namespace {

/// Freezes in vain; the descriptor and the bytes are given back.
UniqueFd refused(UniqueFd fd, const FreezeKit& kit, const std::string& reason) {
  const int number = fd.get();
  const Bytes consumed = bytes_of("head");
  auto result = tcpmig::try_freeze(std::move(fd), consumed, kit);
  REQUIRE(!result.has_value());
  CHECK_THAT(result.error().reason, Contains(reason));
  CHECK(result.error().fd.get() == number);
  CHECK(result.error().consumed == consumed);
  return std::move(result.error().fd);
}

int state_of(int fd) { return info_of(fd).tcpi_state; }
constexpr int kFinWait2 = 5;  // TCP_FIN_WAIT2

/// Both recipes, each with a connection of its own.
void with_each_recipe(const std::function<void(World&, const FreezeKit&, Pair)>& test) {
  World world;
  for (const bool by_program : {true, false}) {
    CAPTURE(by_program);
    const FreezeKit kit(kit_options(by_program));
    REQUIRE(kit.has_dump_program() == by_program);
    Pair pair = connect_pair(world, world.a, Family::kIpv4);
    test(world, kit, std::move(pair));
  }
}

}  // namespace

TEST_CASE("refused: data that the peer has not acknowledged, and data not sent") {
  if (cannot_run_here()) return;
  with_each_recipe([](World& world, const FreezeKit& kit, Pair pair) {
    // the client's side stops reading, and then its acknowledgements have nowhere to go
    const Bytes much = pattern(6'000'000);
    std::size_t sent = 0;
    wait_until("full buffers", [&] {
      const ssize_t put =
          ::send(pair.server.get(), much.data() + sent, much.size() - sent, MSG_DONTWAIT);
      if (put > 0) sent += static_cast<std::size_t>(put);
      return put < 0;
    });
    pair.server = refused(std::move(pair.server), kit, "unsent data");
    CHECK(receive_exactly(pair.client.get(), sent) ==
          Bytes(much.begin(), much.begin() + static_cast<long>(sent)));
    wait_until("acknowledgements", [&] { return info_of(pair.server.get()).tcpi_unacked == 0; });
    world.route_to(world.b);  // acknowledgements go astray
    send_all(pair.server.get(), bytes_of("unheard"));
    pair.server = refused(std::move(pair.server), kit, "unacknowledged data (7 bytes)");
    world.route_to(world.a);
    CHECK(receive_exactly(pair.client.get(), 7) == bytes_of("unheard"));
    CHECK(talk(pair.client.get(), pair.server.get(), 1000));
  });
}

TEST_CASE("refused: this side has closed its direction") {
  if (cannot_run_here()) return;
  with_each_recipe([](World&, const FreezeKit& kit, Pair pair) {
    send_all(pair.client.get(), bytes_of("words"));
    ::shutdown(pair.server.get(), SHUT_WR);
    wait_until("the FIN's acknowledgement",
               [&] { return state_of(pair.server.get()) == kFinWait2; });
    pair.server = refused(std::move(pair.server), kit, "FIN_WAIT2");
    CHECK(receive_exactly(pair.server.get(), 5) == bytes_of("words"));
  });
}

TEST_CASE("refused: urgent data") {
  if (cannot_run_here()) return;
  with_each_recipe([](World&, const FreezeKit& kit, Pair pair) {
    check("send MSG_OOB", ::send(pair.client.get(), "ab!", 3, MSG_OOB));
    wait_until("data", [&] { return bytes_waiting(pair.server.get()) >= 2; });
    pair.server = refused(std::move(pair.server), kit, "urgent data");
    CHECK(receive_exactly(pair.server.get(), 2) == bytes_of("ab"));
    char urgent = 0;
    CHECK(::recv(pair.server.get(), &urgent, 1, MSG_OOB) == 1);
    CHECK(urgent == '!');
  });
}

TEST_CASE("refused: a signed connection (seen by the program only)") {
  if (cannot_run_here()) return;
  World world;
  const FreezeKit kit(kit_options(true));
  Pair pair = connect_pair(world, world.a, Family::kIpv4);
  tcp_md5sig key{};
  const auto [peer, length] =
      tcpmig::sys::Endpoint{tcpmig::sys::Address::parse("198.51.100.1").value(), 0}.to_sockaddr();
  std::memcpy(&key.tcpm_addr, &peer, length);
  key.tcpm_keylen = 3;
  std::memcpy(key.tcpm_key, "key", 3);
  if (::setsockopt(pair.server.get(), IPPROTO_TCP, TCP_MD5SIG, &key, sizeof(key)) < 0) {
    std::cout << "SKIPPED: this kernel has no TCP_MD5SIG" << std::endl;
    return;
  }
  refused(std::move(pair.server), kit, "signed");
}

TEST_CASE("refused: an upper layer protocol") {
  if (cannot_run_here()) return;
  with_each_recipe([](World&, const FreezeKit& kit, Pair pair) {
    if (::setsockopt(pair.server.get(), IPPROTO_TCP, TCP_ULP, "tls", 4) < 0) {
      std::cout << "SKIPPED: this kernel has no kTLS" << std::endl;
      return;
    }
    refused(std::move(pair.server), kit, "upper layer protocol");
  });
}

TEST_CASE("refused: MPTCP") {
  if (cannot_run_here()) return;
  World world;
  for (const bool by_program : {true, false}) {
    CAPTURE(by_program);
    const FreezeKit kit(kit_options(by_program));
    const UniqueFd listener = listen_at(world.a, Family::kIpv4, IPPROTO_MPTCP);
    if (!listener) {
      std::cout << "SKIPPED: this kernel has no MPTCP" << std::endl;
      return;
    }
    Pair pair = connect_pair(world, listener.get(), Family::kIpv4, {.protocol = IPPROTO_MPTCP});
    REQUIRE(talk(pair.client.get(), pair.server.get(), 1000));
    pair.server = refused(std::move(pair.server), kit, "MPTCP");
    CHECK(talk(pair.client.get(), pair.server.get(), 1000));
    // a client without MPTCP makes it plain TCP: that can be carried
    Pair plain = connect_pair(world, listener.get(), Family::kIpv4);
    CHECK(tcpmig::try_freeze(std::move(plain.server), {}, kit).has_value());
  }
}

TEST_CASE("refused: what is no connection") {
  if (cannot_run_here()) return;
  World world;
  for (const bool by_program : {true, false}) {
    const FreezeKit kit(kit_options(by_program));
    UniqueFd listener = listen_at(world.a, Family::kIpv4);
    refused(std::move(listener), kit, "LISTEN");
    auto nothing = tcpmig::try_freeze(UniqueFd(), {}, kit);
    CHECK(!nothing.has_value());
  }
}
