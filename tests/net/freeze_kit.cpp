// SPDX-License-Identifier: MIT
// The programs of a process and its cgroup: made, shared, given back.
#include <fcntl.h>
#include <linux/tcp.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <memory>
#include <vector>

#include <tcpmig/freeze.hpp>

#include "catch.hpp"
#include "conn/cgroup.hpp"
#include "conn/cgroup_programs.hpp"
#include "conn/dump.hpp"
#include "conn/silent_visit.hpp"
#include "conn_world.hpp"
#include "shared/node_maps.h"
#include "sys/check.hpp"

using namespace conn_test;
using tcpmig::FreezeKit;
using tcpmig::Frozen;
using tcpmig::sys::UniqueFd;

namespace {

std::string text_of(const char* path) {
  std::ifstream file(path);
  return {std::istreambuf_iterator<char>(file), {}};
}

std::filesystem::path own_cgroup() {
  const auto mount = tcpmig::conn::find_cgroup2(text_of("/proc/mounts")).value();
  const auto path = tcpmig::conn::find_own_cgroup(text_of("/proc/self/cgroup")).value();
  return mount / std::filesystem::path(path).relative_path();
}

FreezeKit::Options options() { return {.cgroup_name = cgroup_name()}; }

}  // namespace

TEST_CASE("a kit puts the process into a cgroup of its own, and back") {
  if (cannot_run_here() || !has_cgroup2()) return;
  const auto before = own_cgroup();
  std::filesystem::path inside;
  {
    const FreezeKit kit(options());
    CHECK(kit.warnings().empty());
    CHECK(kit.has_lock());
    CHECK(kit.has_dump_program());
    CHECK(kit.keeps_window_small());
    CHECK(kit.captures_fd() >= 0);
    inside = own_cgroup();
    CHECK(inside == before / cgroup_name());
  }
  CHECK(own_cgroup() == before);
  CHECK(!std::filesystem::exists(inside));
}

TEST_CASE("kits of one process share the cgroup, whichever goes first") {
  if (cannot_run_here() || !has_cgroup2()) return;
  const auto before = own_cgroup();
  auto one = std::make_unique<FreezeKit>(options());
  auto other = std::make_unique<FreezeKit>(options());
  const auto inside = own_cgroup();
  CHECK(inside == before / cgroup_name());
  one.reset();
  CHECK(own_cgroup() == inside);
  CHECK(other->has_dump_program());
  other.reset();
  CHECK(own_cgroup() == before);
}

TEST_CASE("the cgroup of a process that was killed is used again and removed") {
  if (cannot_run_here() || !has_cgroup2()) return;
  const auto before = own_cgroup();
  REQUIRE(::mkdir((before / cgroup_name()).c_str(), 0755) == 0);
  SECTION("an empty one") {}
  SECTION("this process is in it, as the child of one that was killed") {
    std::ofstream(before / cgroup_name() / "cgroup.procs") << "0" << std::flush;
  }
  {
    const FreezeKit kit(options());
    CHECK(kit.warnings().empty());
    CHECK(own_cgroup() == before / cgroup_name());
  }
  CHECK(own_cgroup() == before);
  CHECK(!std::filesystem::exists(before / cgroup_name()));
}

TEST_CASE("without a cgroup the plain recipe dumps, and nothing warns") {
  if (cannot_run_here()) return;
  World world;
  const FreezeKit kit({.use_dump_program = true, .cgroup_name = ""});
  CHECK(kit.warnings().empty());
  CHECK(!kit.has_dump_program());
  CHECK(!kit.keeps_window_small());
  Pair pair = connect_pair(world, world.a, Family::kIpv4);
  const Frozen frozen = tcpmig::freeze(std::move(pair.server), {}, kit);
  CHECK(!frozen.snapshot().timestamps.value().ts_recent);
}

TEST_CASE("a cgroup name that cannot be is a warning, not the end") {
  if (cannot_run_here()) return;
  const FreezeKit kit({.cgroup_name = "no/such/directory"});
  CHECK(kit.warnings().size() == 1);
  CHECK(kit.has_lock());
  CHECK(!kit.has_dump_program());
}

TEST_CASE("connections of a listener made before the kit are dumped by the plain recipe") {
  if (cannot_run_here() || !has_cgroup2()) return;
  World world;
  const UniqueFd listener = listen_at(world.a, Family::kIpv4);
  const FreezeKit kit({.cgroup_name = cgroup_name(), .keep_window_small = false});
  REQUIRE(kit.has_dump_program());
  Pair pair = connect_pair(world, listener.get(), Family::kIpv4);
  const Frozen frozen = tcpmig::freeze(std::move(pair.server), {}, kit);
  CHECK(!frozen.snapshot().timestamps.value().ts_recent);  // so it was that recipe
}

TEST_CASE("other getsockopt calls pass the dump program as they are") {
  if (cannot_run_here() || !has_cgroup2()) return;
  World world;
  const FreezeKit kit({.cgroup_name = cgroup_name(), .keep_window_small = false});
  Pair pair = connect_pair(world, world.a, Family::kIpv4);
  const int fd = pair.server.get();
  int value = 0;
  socklen_t length = sizeof(value);
  CHECK(::getsockopt(fd, SOL_SOCKET, SO_TYPE, &value, &length) == 0);
  CHECK(value == SOCK_STREAM);
  CHECK(length == sizeof(value));

  // longer than a page: the kernel shows the program a part only
  std::vector<char> large(3 * 4096, 'x');
  length = static_cast<socklen_t>(large.size());
  CHECK(::getsockopt(fd, IPPROTO_TCP, TCP_CONGESTION, large.data(), &length) == 0);
  CHECK(length == 16);
  CHECK(std::string(large.data()) != "");

  length = sizeof(value);
  CHECK(::getsockopt(fd, tcpmig::abi::DUMP_LEVEL, tcpmig::abi::DUMP_WHOLE_OPTNAME + 1, &value,
                     &length) < 0);
  CHECK((errno == ENOPROTOOPT || errno == EOPNOTSUPP));  // as without a program
  length = sizeof(value);                                // too small for the dump
  CHECK(::getsockopt(fd, tcpmig::abi::DUMP_LEVEL, tcpmig::abi::DUMP_OPTNAME, &value, &length) < 0);
  CHECK((errno == ENOPROTOOPT || errno == EOPNOTSUPP));  // as without a program
}

TEST_CASE("a dump by a copy of the socket says what TCP_REPAIR says") {
  if (cannot_run_here() || !has_cgroup2()) return;
  World world;
  tcpmig::conn::CgroupPrograms programs(cgroup_name());
  REQUIRE_NOTHROW(programs.attach_dump(true));
  for (const Family family : {Family::kIpv4, Family::kIpv6, Family::kMapped}) {
    Pair pair = connect_pair(world, world.a, family);
    send_all(pair.client.get(), bytes_of("request"));
    wait_until("the request", [&] { return bytes_waiting(pair.server.get()) == 7; });
    const auto by_copy = tcpmig::conn::dump_by_program(pair.server.get());
    std::optional<tcpmig::conn::SilentVisit> silence;
    const auto by_repair = tcpmig::conn::dump_by_repair(pair.server.get(), silence).state;
    REQUIRE(by_copy);
    CHECK(by_copy->state.ts_recent != 0);
    const auto identity = [](const tcpmig::abi::tcp_dump& dump) {
      return std::vector<std::uint32_t>{
          dump.rcv_nxt,    dump.snd_una,   dump.snd_nxt,   dump.write_seq,  dump.rcv_wnd,
          dump.snd_wnd,    dump.options,   dump.mss_clamp, dump.snd_wscale, dump.rcv_wscale,
          dump.local_port, dump.peer_port, dump.state,     dump.refused};
    };
    CHECK(identity(by_copy->state) == identity(by_repair));
    CHECK(std::ranges::equal(by_copy->state.peer.bytes, by_repair.peer.bytes));
    CHECK(std::ranges::equal(by_copy->state.local.bytes, by_repair.local.bytes));
  }
}

TEST_CASE("an exception of the one who takes captures comes through") {
  if (cannot_run_here()) return;
  World world;
  FreezeKit kit({.cgroup_name = cgroup_name(), .keep_window_small = false});
  CHECK(kit.consume_captures([](auto) {}) == 0);
  Pair pair = connect_pair(world, world.a, Family::kIpv4);
  const Frozen frozen = tcpmig::freeze(std::move(pair.server), {}, kit);
  send_all(pair.client.get(), bytes_of("x"));
  wait_until("the exception", [&] {
    try {
      kit.consume_captures([](auto) { throw std::logic_error("mine"); });
      return false;
    } catch (const std::logic_error&) {
      return true;
    }
  });
}
