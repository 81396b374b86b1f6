// SPDX-License-Identifier: MIT
// What of a whole connection cannot be carried is refused with a reason, and the connection goes on.
#include <linux/tcp.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include <cstring>

#include <tcpmig/freeze.hpp>

#include "catch.hpp"
#include "conn/segment.hpp"
#include "conn/socket_lock.hpp"
#include "conn/socket_option.hpp"
#include "conn_world.hpp"
#include "sys/check.hpp"
#include "sys/tun.hpp"

using namespace conn_test;
using tcpmig::FreezeKit;
using tcpmig::Scope;
using tcpmig::Snapshot;
using tcpmig::sys::UniqueFd;

namespace {

void set(const UniqueFd& fd, int level, int name, int value) {
  tcpmig::conn::set_option(fd.get(), level, name, value, "setsockopt");
}

/// TCP has it since Linux 6.9.
bool has_peek_offset() {
  const UniqueFd fd(tcpmig::sys::check("socket", ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)));
  const int offset = 0;
  return ::setsockopt(fd.get(), SOL_SOCKET, SO_PEEK_OFF, &offset, sizeof offset) == 0;
}

}  // namespace

TEST_CASE("a whole freeze refuses by name what cannot be carried") {
  if (cannot_run_here()) return;
  World world;
  const FreezeKit kit(kit_options(true));
  const auto reason = [&](const std::function<void(const Pair&)>& prepare) {
    Pair pair = connect_pair(world, world.a, Family::kIpv4);
    prepare(pair);
    auto result = tcpmig::try_freeze(std::move(pair.server), {}, kit, Scope::kWhole);
    REQUIRE(!result.has_value());
    return result.error().reason;
  };
  if (has_peek_offset())
    CHECK(reason([](const Pair& pair) { set(pair.server, SOL_SOCKET, SO_PEEK_OFF, 0); }) ==
          "the application peeks by SO_PEEK_OFF");
  CHECK(reason([](const Pair& pair) {
          set(pair.server, SOL_SOCKET, SO_ZEROCOPY, 1);
          const tcpmig::conn::SocketLock lost(pair.server.get(), -1);
          send_all(pair.server.get(), pattern(1'000));
          wait_until("sent", [&] { return info_of(pair.server.get()).tcpi_unacked > 0; });
        }).starts_with("the application sends without copying"));
  CHECK(reason([](const Pair& pair) {
          REQUIRE(::send(pair.client.get(), "!", 1, MSG_OOB) == 1);
          wait_until("urgent data", [&] {
            return bytes_waiting(pair.server.get()) == 0 &&
                   info_of(pair.server.get()).tcpi_bytes_received > 0;
          });
        }) == "urgent data is waiting");
}

TEST_CASE(
    "a whole freeze refuses data after a gap, by both recipes, and takes the connection when the "
    "gap is filled") {
  if (cannot_run_here()) return;
  for (const bool by_program : {true, false}) {
    CAPTURE(by_program);
    World world;
    const FreezeKit kit(kit_options(by_program));
    tcpmig::sys::Tun tun = tun_in(world.a);
    Pair pair = connect_pair(world, world.a, Family::kIpv4);
    auto untouched = tcpmig::try_freeze(std::move(pair.server), {}, kit, Scope::kWhole);
    REQUIRE(untouched.has_value());
    const Snapshot snapshot = untouched->snapshot();
    pair.server = untouched->thaw({}, [](auto) {});

    const Bytes words = bytes_of("words of the peer");  // the last five come first
    tcphdr header{};
    header.doff = sizeof(header) / 4;
    header.ack = 1;
    header.seq = htonl(snapshot.rcv_nxt.value + static_cast<std::uint32_t>(words.size()) - 5);
    header.ack_seq = htonl(snapshot.snd_nxt.value);
    header.window = htons(500);
    Bytes segment(sizeof header);
    std::memcpy(segment.data(), &header, sizeof header);
    segment.insert(segment.end(), words.end() - 5, words.end());
    CHECK(tcpmig::conn::give_packets(snapshot.peer, snapshot.local, segment,
                                     [&](auto packet) { CHECK(tun.inject(packet)); }));
    wait_until("the gap", [&] { return info_of(pair.server.get()).tcpi_rcv_ooopack > 0; });
    auto refused = tcpmig::try_freeze(std::move(pair.server), {}, kit, Scope::kWhole);
    REQUIRE(!refused.has_value());
    CHECK_THAT(refused.error().reason,
               Catch::Matchers::StartsWith("data of the peer has come out of order"));

    send_all(pair.client.get(), words);
    wait_until("all of it",
               [&] { return bytes_waiting(refused.error().fd.get()) == words.size(); });
    CHECK(tcpmig::try_freeze(std::move(refused.error().fd), {}, kit, Scope::kWhole)
              ->snapshot()
              .received == words);
  }
}
