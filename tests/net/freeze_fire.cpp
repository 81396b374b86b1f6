// SPDX-License-Identifier: MIT
// The lock has a leak: a softirq that was past the filter when it came still delivers (docs/kernel-notes.md). So connections are
// frozen while their client fires at them, as often as TCPMIG_LOCK_RUNS says, and every byte that the client takes for
// acknowledged must be in the snapshot, or be seen by the second look after a grace period.
#include <linux/membarrier.h>
#include <linux/tcp.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <atomic>
#include <cstdlib>
#include <deque>
#include <optional>
#include <random>
#include <thread>
#include <unordered_map>

#include <tcpmig/freeze.hpp>

#include "catch.hpp"
#include "conn_world.hpp"
#include "sys/check.hpp"
#include "sys/tun.hpp"

using namespace conn_test;
using tcpmig::CapturedSegment;
using tcpmig::FreezeKit;
using tcpmig::Frozen;
using tcpmig::sys::UniqueFd;

namespace {

constexpr std::size_t kTargets = 256;  // frozen together: one grace period for all

std::size_t runs_wanted() {
  const char* text = std::getenv("TCPMIG_LOCK_RUNS");
  return text != nullptr ? std::strtoul(text, nullptr, 10) : 20'000;
}

/// What the client sends at this place of its stream.
std::byte byte_at(std::uint64_t offset) {
  return static_cast<std::byte>(offset ^ offset >> 8 ^ offset >> 16);
}

bool is_stream(std::span<const std::byte> bytes, std::uint64_t from) {
  for (const std::byte byte : bytes)
    if (byte != byte_at(from++)) return false;
  return true;
}

struct Target {
  Pair pair;
  std::uint64_t handshake = 0;          ///< what the client counts as acknowledged before any byte
  std::atomic<std::uint64_t> sent = 0;  ///< by the client
  std::uint64_t got = 0;                ///< in snapshots, and read
  std::optional<Frozen> frozen;
  std::vector<CapturedSegment> captured;

  [[nodiscard]] std::uint64_t acknowledged() const {
    return info_of(pair.client.get()).tcpi_bytes_acked - handshake;
  }
};

/// A thread that sends to one target, as fast as it can.
class Fire {
 public:
  explicit Fire(std::deque<Target>& targets) : targets_(targets), thread_([this] { run(); }) {}
  ~Fire() { stop(); }
  Fire(const Fire&) = delete;
  Fire& operator=(const Fire&) = delete;
  void at(std::size_t target) { target_.store(target, std::memory_order_release); }
  void stop() {
    stop_ = true;
    if (thread_.joinable()) thread_.join();
  }

 private:
  void run() {
    std::minstd_rand random(1);
    std::array<std::byte, 64> bytes{};
    while (!stop_) {
      Target& target = targets_[target_.load(std::memory_order_acquire)];
      const std::uint64_t from = target.sent;
      const std::size_t size = 1 + random() % bytes.size();
      for (std::size_t i = 0; i < size; ++i) bytes[i] = byte_at(from + i);
      const auto done = ::send(target.pair.client.get(), bytes.data(), size, MSG_DONTWAIT);
      if (done > 0) target.sent += static_cast<std::uint64_t>(done);
    }
  }
  std::deque<Target>& targets_;
  std::atomic<std::size_t> target_ = 0;
  std::atomic<bool> stop_ = false;
  std::thread thread_;
};

struct Tally {
  std::size_t freezes = 0, leaks = 0, leaked_bytes = 0, seen_at_once = 0, refused = 0;
  std::size_t captured = 0;
  std::minstd_rand random{2};
};

void make_targets(World& world, std::deque<Target>& targets) {
  const UniqueFd four = listen_at(world.a, Family::kIpv4), six = listen_at(world.a, Family::kIpv6);
  for (std::size_t i = 0; i < kTargets; ++i) {
    Target& target = targets.emplace_back();
    const bool ipv6 = i % 2 != 0;
    target.pair =
        connect_pair(world, (ipv6 ? six : four).get(), ipv6 ? Family::kIpv6 : Family::kIpv4);
    const int on = 1;
    ::setsockopt(target.pair.client.get(), IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    target.handshake = info_of(target.pair.client.get()).tcpi_bytes_acked;
  }
}

void freeze_all(std::deque<Target>& targets, Fire& fire, const FreezeKit& kit, Tally& tally) {
  for (std::size_t i = 0; i < targets.size(); ++i) {
    Target& target = targets[i];
    fire.at(i);
    const std::uint64_t before = target.sent;
    for (int spins = 0; target.sent == before && spins < 20'000; ++spins) {
    }  // until it is hit; then at any moment of what comes next
    for (auto spins = tally.random() % 8'000; spins > 0; --spins) asm volatile("");
    auto frozen = tcpmig::try_freeze(std::move(target.pair.server), {}, kit);
    if (!frozen) {  // more kept coming than eight looks could take in: that costs nothing
      target.pair.server = std::move(frozen.error().fd);
      REQUIRE(is_stream(frozen.error().consumed, target.got));
      target.got += frozen.error().consumed.size();
      ++tally.refused;
      continue;
    }
    target.frozen = std::move(*frozen);
    const Bytes& received = target.frozen->snapshot().received;
    REQUIRE(is_stream(received, target.got));
    target.got += received.size();
    ++tally.freezes;
    tally.seen_at_once += !target.frozen->late_bytes().empty();
  }
}

/// The second look. Whatever the client takes for acknowledged, the new owner is told of.
void look_again(std::deque<Target>& targets, Tally& tally) {
  for (Target& target : targets) {
    if (!target.frozen) continue;
    const Bytes late = target.frozen->late_bytes();
    REQUIRE(is_stream(late, target.got));
    REQUIRE(target.acknowledged() <= target.got + late.size());
    REQUIRE_FALSE(target.frozen->late_fin());
    tally.leaks += !late.empty();
    tally.leaked_bytes += late.size();
  }
}

void take_captures(std::deque<Target>& targets, FreezeKit& kit, Tally& tally) {
  std::unordered_map<std::uint64_t, Target*> by_cookie;
  for (Target& target : targets) {
    target.captured.clear();
    if (target.frozen) by_cookie[target.frozen->cookie()] = &target;
  }
  kit.consume_captures([&](CapturedSegment segment) {
    const auto found = by_cookie.find(segment.cookie);
    if (found == by_cookie.end()) return;
    ++tally.captured;
    found->second->captured.push_back(std::move(segment));
  });
}

void thaw_all(std::deque<Target>& targets, tcpmig::sys::Tun& tun) {
  for (Target& target : targets) {
    if (!target.frozen) continue;
    target.pair.server =
        target.frozen->thaw(target.captured, [&](auto packet) { tun.inject(packet); });
    target.frozen.reset();
  }
}

void wait_for_grace_period() {
  tcpmig::sys::check("membarrier",
                     static_cast<int>(::syscall(SYS_membarrier, MEMBARRIER_CMD_GLOBAL, 0, 0)));
}

/// What is still under way comes in the end: given back or sent again.
void read_all(std::deque<Target>& targets) {
  for (Target& target : targets) {
    const Bytes rest = receive_exactly(target.pair.server.get(), target.sent - target.got);
    REQUIRE(is_stream(rest, target.got));
    target.got += rest.size();
    REQUIRE(target.got == target.sent);
    REQUIRE(bytes_waiting(target.pair.server.get()) == 0);
  }
}

}  // namespace

TEST_CASE("frozen under fire: every acknowledged byte is in the snapshot or seen later") {
  if (cannot_run_here()) return;
  World world;
  auto tun = tun_in(world.a);
  FreezeKit kit({.cgroup_name = cgroup_name(), .keep_window_small = false});
  std::deque<Target> targets;
  make_targets(world, targets);
  Tally tally;
  {
    Fire fire(targets);
    const std::size_t wanted = runs_wanted();
    while (tally.freezes < wanted) {
      freeze_all(targets, fire, kit, tally);
      wait_for_grace_period();
      look_again(targets, tally);
      take_captures(targets, kit, tally);
      thaw_all(targets, tun);
    }
    // once for good: with the connection gone here, nothing more is ever acknowledged
    freeze_all(targets, fire, kit, tally);
    wait_for_grace_period();
    look_again(targets, tally);
    fire.stop();
    take_captures(targets, kit, tally);
    std::vector<std::uint64_t> before;
    for (Target& target : targets) before.push_back(target.acknowledged());
    for (std::size_t i = 0; i < targets.size() / 2; ++i)
      if (targets[i].frozen) targets[i].frozen->commit();
    for (std::size_t i = 0; i < targets.size() / 2; ++i)
      CHECK(targets[i].acknowledged() == before[i]);
    for (std::size_t i = 0; i < kTargets / 2; ++i) targets.pop_front();
    thaw_all(targets, tun);
  }
  read_all(targets);
  WARN(tally.freezes << " freezes under fire, " << tally.captured << " segments captured, "
                     << tally.leaks << " leaked past the lock (" << tally.leaked_bytes << " bytes; "
                     << tally.seen_at_once << " seen at once), all found by the second look; "
                     << tally.refused << " refused");
  CHECK(tally.captured > 0);
}
