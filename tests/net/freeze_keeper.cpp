// SPDX-License-Identifier: MIT
// A freezer that is killed in the middle, step by step: its keeper gives the connection back, or holds its place.
#include <fcntl.h>
#include <linux/bpf.h>  // the TCP states
#include <linux/tcp.h>
#include <netinet/in.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <filesystem>
#include <functional>

#include <tcpmig/freeze.hpp>

#include "catch.hpp"
#include "conn/placeholder.hpp"
#include "conn_world.hpp"
#include "lab/payload.hpp"
#include "manual/hold.hpp"
#include "manual/keeper.hpp"
#include "manual/snapshot_file.hpp"
#include "sys/check.hpp"

using namespace conn_test;
using namespace std::chrono_literals;
namespace conn = tcpmig::conn;
namespace manual = tcpmig::manual;
using tcpmig::sys::UniqueFd;

namespace {

enum class Step { kFrozen, kWritten, kPlaced, kPublished, kEnded };

/// The steps of a freeze as far as `last`, and then kill -9.
[[noreturn]] void freeze_and_die(int socket, const std::filesystem::path& place, Step last) {
  const auto die_at = [&](Step step) {
    if (step == last) ::kill(::getpid(), SIGKILL);
  };
  manual::SnapshotFile file(place, false);
  const tcpmig::FreezeKit kit(
      {.use_dump_program = false, .cgroup_name = "", .keep_window_small = false});
  const conn::Endpoints ends = conn::dump_endpoints(socket);
  const UniqueFd meeting = manual::open_meeting_point(ends);
  manual::Keeper keeper(socket, file, meeting.get(), 60s);
  tcpmig::Frozen frozen =
      tcpmig::freeze(UniqueFd(::fcntl(socket, F_DUPFD_CLOEXEC, 3)), {}, kit, tcpmig::Scope::kWhole);
  die_at(Step::kFrozen);
  file.write(frozen.snapshot());
  die_at(Step::kWritten);
  conn::step_aside(socket, ends.peer);
  const UniqueFd placeholder = conn::open_placeholder(ends, false);
  keeper.give_placeholder(placeholder.get());
  die_at(Step::kPlaced);
  file.publish();
  die_at(Step::kPublished);
  conn::disconnect_silently(socket);
  die_at(Step::kEnded);
  ::_exit(1);
}

int option(const UniqueFd& fd, int level, int name) {
  int value = -1;
  socklen_t length = sizeof(value);
  tcpmig::sys::check("getsockopt", ::getsockopt(fd.get(), level, name, &value, &length));
  return value;
}

std::size_t entries(const std::filesystem::path& directory) {
  return static_cast<std::size_t>(
      std::distance(std::filesystem::directory_iterator(directory), {}));
}

}  // namespace

TEST_CASE("freeze: killed after any of its steps, its keeper does the rest or undoes it") {
  if (cannot_run_here()) return;
  for (const Step last :
       {Step::kFrozen, Step::kWritten, Step::kPlaced, Step::kPublished, Step::kEnded}) {
    CAPTURE(static_cast<int>(last));
    World world;
    const tcpmig::lab::TemporaryDirectory directory("tcpmig-keeper");
    const auto file = directory.path() / "c.snap";
    Pair pair = connect_pair(world, world.a, Family::kIpv4);
    const int on = 1;
    REQUIRE(::setsockopt(pair.server.get(), SOL_SOCKET, SO_REUSEADDR, &on, sizeof on) == 0);
    const pid_t child = ::fork();
    if (child == 0) {
      const auto in = world.a.enter();
      freeze_and_die(pair.server.get(), file, last);
    }
    int status = 0;
    REQUIRE(::waitpid(child, &status, 0) == child);
    REQUIRE(WIFSIGNALED(status));
    wait_until("the socket is out of repair", [&] {
      return option(pair.server, IPPROTO_TCP, TCP_REPAIR) == 0 &&
             option(pair.server, SOL_SOCKET, SO_BINDTOIFINDEX) == 0;
    });
    if (last != Step::kEnded) {
      wait_until("the file is gone", [&] { return entries(directory.path()) == 0; });
      CHECK(option(pair.server, SOL_SOCKET, SO_REUSEADDR) == 1);
      CHECK(talk(pair.client.get(), pair.server.get(), 20'000));
      continue;
    }
    CHECK(manual::read_snapshot(file).state == tcpmig::TcpState::kEstablished);
    CHECK(info_of(pair.server.get()).tcpi_state == BPF_TCP_CLOSE);
    send_all(pair.client.get(), bytes_of("nobody is there"));
    CHECK(info_of(pair.client.get()).tcpi_state == BPF_TCP_ESTABLISHED);
    const auto in = world.a.enter();
    const auto snapshot = manual::read_snapshot(file);
    auto held = manual::HeldPlace::find({snapshot.local, snapshot.peer});
    REQUIRE(held.has_value());
    held->taken();
    held.reset();  // steps back, and is held on
    CHECK(manual::HeldPlace::find({snapshot.local, snapshot.peer}).has_value());
  }
}
