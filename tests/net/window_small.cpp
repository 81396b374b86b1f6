// SPDX-License-Identifier: MIT
// What is acknowledged and not read stays small, and the window scale as it was.
#include <linux/tcp.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include <tcpmig/freeze.hpp>

#include "catch.hpp"
#include "conn_world.hpp"

using namespace conn_test;
using tcpmig::FreezeKit;

namespace {

struct Upload {
  std::uint64_t acknowledged = 0;
  unsigned rcv_wscale = 0;
};

/// The client sends 5 MB at once, nobody reads. Ends when the client has filled the window and has
/// heard of it.
Upload upload(World& world, Family family, bool keep_window_small) {
  const FreezeKit kit({.cgroup_name = cgroup_name(), .keep_window_small = keep_window_small});
  REQUIRE(kit.keeps_window_small() == keep_window_small);
  const Pair pair = connect_pair(world, world.a, family);
  const Bytes much = pattern(5'000'000);
  std::size_t sent = 0;
  wait_until("a full window", [&] {
    const ssize_t put = ::send(pair.client.get(), much.data() + sent, much.size() - sent,
                               MSG_DONTWAIT | MSG_NOSIGNAL);
    if (put > 0) sent += static_cast<std::size_t>(put);
    const auto info = info_of(pair.client.get());
    return put < 0 && info.tcpi_unacked == 0 && info.tcpi_notsent_bytes > 0;
  });
  return {.acknowledged = bytes_waiting(pair.server.get()),
          .rcv_wscale = info_of(pair.server.get()).tcpi_rcv_wscale};
}

}  // namespace

TEST_CASE("an upload that nobody reads: at most 32 KB are acknowledged, window scale kept") {
  if (cannot_run_here()) return;
  World world;
  for (const Family family : {Family::kIpv4, Family::kIpv6}) {
    CAPTURE(static_cast<int>(family));
    const Upload usual = upload(world, family, false);
    const Upload small = upload(world, family, true);
    CHECK(usual.acknowledged > 60'000);
    CHECK(small.acknowledged <= 32'768);
    CHECK(small.acknowledged > 8'000);
    CHECK(small.rcv_wscale == usual.rcv_wscale);
    CHECK(small.rcv_wscale > 0);
    UNSCOPED_INFO("acknowledged: " << usual.acknowledged << " usually, " << small.acknowledged
                                   << " small");
  }
}
