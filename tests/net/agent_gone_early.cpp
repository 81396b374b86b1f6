// SPDX-License-Identifier: MIT
// A connection that comes and goes while the agent does not look: the guard has seen it, and it counts as moved.
#include <linux/filter.h>
#include <signal.h>
#include <sys/socket.h>

#include "agent_steps.hpp"
#include "catch.hpp"
#include "leaving.hpp"

using namespace agent_test;
using namespace tcpmig;

namespace {

/// While this lives the agent does not run.
class StandsStill {
 public:
  explicit StandsStill(const World& world) : agent_(pid_of(world)) { agent_test::stop(agent_); }
  ~StandsStill() { ::kill(agent_, SIGCONT); }
  StandsStill(const StandsStill&) = delete;
  StandsStill& operator=(const StandsStill&) = delete;

 private:
  pid_t agent_;
};

}  // namespace

TEST_CASE("agent: a child that has gone before anybody looked was there", "[agent]") {
  if (cannot_run_here()) return;
  World world;
  const UniqueFd listener = world.listener();
  world.start();
  const Endpoint client = GENERATE(client4(9'300), client6(9'301));
  enum class By { kClient, kReset, kServer };  // who ends it
  const By by = GENERATE(By::kClient, By::kReset, By::kServer);
  CAPTURE(client.str(), static_cast<int>(by));
  if (by == By::kServer) no_room_for_time_wait(world);
  {
    const StandsStill still(world);
    world.transfer(transfer_of(client), snapshot_of(client, bytes_of(kRequest)));
    UniqueFd child = accepted(listener);
    REQUIRE(child);
    const auto last = static_cast<std::uint8_t>(by == By::kReset ? kRst : kAck | kFin);
    if (by != By::kServer) world.send_segment(client, kNext, 70'000, last);
    CHECK(read_bytes(child, kRequest.size()).size() <= kRequest.size());
    child.reset();
    // (the server's FIN was the byte 70,000)
    const std::uint32_t next = by == By::kServer ? kNext : kNext + 1;
    if (by != By::kReset) world.send_segment(client, next, 70'001, kAck);
    REQUIRE(sys_test::holds_within(5s, [&] { return has_no_socket(world, client); }));
  }
  CHECK(is_resumed(world.answer()));
  CHECK(world.counter("child_gone_early") == 1);
  CHECK(world.counter("child_looked_for_again") == 0);
  const auto gone = world.to_switch();  // (nobody plays the switch that would have seen its end)
  REQUIRE(gone);
  CHECK(gone->type == abi::WIRE_GONE);
}

TEST_CASE("agent: a child of an earlier transfer that ended is no sign of a later one", "[agent]") {
  if (cannot_run_here()) return;
  World world("[timeouts]\ntransfer = \"1s\"\n");
  const UniqueFd listener = world.listener();
  world.start();
  const Endpoint client = client4(9'310);
  {
    UniqueFd child = open_one(world, listener, client);
    world.send_segment(client, kNext, 70'000, kRst);
    REQUIRE(sys_test::holds_within(5s, [&] { return has_no_socket(world, client); }));
  }
  sock_filter drop[] = {BPF_STMT(BPF_RET | BPF_K, 0)};  // the kernel takes it, and no child comes
  const sock_fprog program{1, drop};
  REQUIRE(::setsockopt(listener.get(), SOL_SOCKET, SO_ATTACH_FILTER, &program, sizeof program) ==
          0);
  world.transfer(transfer_of(client, 1'001), snapshot_of(client, bytes_of(kRequest)));
  CHECK(is_refused(world.answer(), abi::REASON_KERNEL_REFUSED));
  CHECK(world.counter("child_gone_early") == 0);
}
