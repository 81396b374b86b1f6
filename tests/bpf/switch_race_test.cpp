// SPDX-License-Identifier: MIT
// Two CPUs decide about one flow at the same time: whatever the order, there is one owner, and one
// truth about it.
#include <atomic>
#include <functional>
#include <thread>

#include "bpf/switch_rig.hpp"

using namespace rig;
using namespace packets;

namespace {

constexpr unsigned kGeneration = 1000;
constexpr int kRounds = 1500;

/// Runs both at once, in the namespace of the test.
template <typename First, typename Second>
void at_once(First first, Second second) {
  std::atomic<int> ready = 0;
  const auto meet = [&] {
    ready++;
    while (ready < 2) {
    }
  };
  std::thread other([&] {
    meet();
    second();
  });
  meet();
  first();
  other.join();
}

enum class Verdict { kDone, kRefused, kDropped };

/// What became of a COMMIT: sent on or answered with RESUMED, refused, or dropped.
Verdict verdict_of(const Result& r) {
  if (r.action != Action::kRedirect) return Verdict::kDropped;
  const auto type = header_of(packets::read(r.frame)).type;
  return type == abi::WIRE_REFUSED ? Verdict::kRefused : Verdict::kDone;
}

struct Race {
  const World& w;
  Bytes frame(unsigned sender, unsigned target, unsigned generation) const {
    return control(w.f, transfer(w.f, abi::WIRE_COMMIT, sender, target, generation)).bytes();
  }
  Result shoot(const Bytes& bytes) const { return w.s.shoot("nodes", "nodes0", bytes); }
};

}  // namespace

TEST_CASE("race: taking back against the owner's first packet") {
  SWITCH_WORLD(w);
  const Race race{w};
  int taken = 0;
  for (int round = 0; round < kRounds; round++) {
    w.s.set_flow(w.f, Rig::owned(2, 1, kGeneration, false));
    const Bytes back = race.frame(1, 1, kGeneration + 1),
                packet = w.tcp_out(2, {.flags = kAck}).bytes();
    Verdict verdict{};
    Action action{};
    at_once([&] { verdict = verdict_of(race.shoot(back)); },
            [&] { action = race.shoot(packet).action; });
    const auto owner = w.s.flow(w.f)->owner.is;
    const bool back_with_previous = verdict == Verdict::kDone;
    taken += back_with_previous;
    REQUIRE(verdict != Verdict::kDropped);
    // the point of no return: either the client has seen the owner, or the flow is back
    REQUIRE((action == Action::kRedirect) == !back_with_previous);
    REQUIRE(owner.owner == (back_with_previous ? 1 : 2));
    REQUIRE(owner.spoke == !back_with_previous);
  }
  WARN("taken back in " << taken << " of " << kRounds << " races");
}

TEST_CASE("race: two transfers of one flow") {
  SWITCH_WORLD(w);
  const Race race{w};
  for (int round = 0; round < kRounds; round++) {
    w.s.set_flow(w.f, Rig::owned(2, 1, kGeneration, false));
    const Bytes on = race.frame(2, 7, kGeneration + 1),
                elsewhere = race.frame(1, 5, kGeneration + 1);
    Verdict a{}, b{};
    at_once([&] { a = verdict_of(race.shoot(on)); },
            [&] { b = verdict_of(race.shoot(elsewhere)); });
    REQUIRE((a == Verdict::kDone) != (b == Verdict::kDone));
    REQUIRE(w.s.flow(w.f)->owner.is.owner == (a == Verdict::kDone ? 7 : 5));
    REQUIRE(w.s.flow(w.f)->owner.is.generation == kGeneration + 1);
  }
}

TEST_CASE("race: two first transfers") {
  SWITCH_WORLD(w);
  const Race race{w};
  for (int round = 0; round < kRounds; round++) {
    tcpmig::sys::map_delete(w.s.map("flows"), key_of(w.f));
    const Bytes first = race.frame(1, 2, kGeneration), second = race.frame(1, 7, kGeneration);
    Verdict a{}, b{};
    at_once([&] { a = verdict_of(race.shoot(first)); },
            [&] { b = verdict_of(race.shoot(second)); });
    REQUIRE((a == Verdict::kDone) != (b == Verdict::kDone));
    REQUIRE(w.s.flow(w.f)->owner.is.owner == (a == Verdict::kDone ? 2 : 7));
  }
}

TEST_CASE("race: what a COMMIT says of the client's FIN against a FIN seen in the old generation") {
  SWITCH_WORLD(w);
  const Race race{w};
  for (int round = 0; round < kRounds; round++) {
    w.s.set_flow(w.f, Rig::owned(2, 1, kGeneration, true));
    abi::wire_header header = transfer(w.f, abi::WIRE_COMMIT, 2, 7, kGeneration + 1);
    header.flags = abi::WIRE_FLAG_CLIENT_FIN;
    const Bytes on = control(w.f, header).bytes(),
                fin = w.tcp_in({.seq = 500, .flags = kFin | kAck}).bytes();
    Verdict verdict{};
    at_once([&] { verdict = verdict_of(race.shoot(on)); },
            [&] { w.s.shoot("clients", "clients0", fin); });
    REQUIRE(verdict == Verdict::kDone);
    REQUIRE(w.s.flow(w.f)->marks.is.generation == kGeneration + 1);
    REQUIRE(w.s.flow(w.f)->marks.is.client_fin);
  }
}

TEST_CASE("race: the last two ACKs of a connection") {
  SWITCH_WORLD(w);
  const Race race{w};
  const Bytes in = w.tcp_in({.seq = 501, .ack = 1001, .flags = kAck}).bytes(),
              out = w.tcp_out(2, {.seq = 1001, .ack = 501, .flags = kAck}).bytes();
  for (int round = 0; round < 2 * kRounds; round++) {
    auto entry = Rig::owned(2, 1, kGeneration, true);
    entry.marks.is.generation = kGeneration;
    entry.marks.is.owner_fin = entry.marks.is.client_fin = 1;
    entry.owner_fin_end = 1001;
    entry.client_fin_end = 501;
    w.s.set_flow(w.f, entry);
    at_once([&] { w.s.shoot("clients", "clients0", in); }, [&] { race.shoot(out); });
    REQUIRE(w.s.flow(w.f)->marks.is.closing);
  }
}

TEST_CASE("race: a new life against the sweep") {
  SWITCH_WORLD(w);
  const Race race{w};
  int lost = 0;
  for (int round = 0; round < kRounds; round++) {
    auto dead = Rig::owned(2, 1, kGeneration, true);
    dead.owner.word = 0;
    dead.owner.is.generation = kGeneration;
    dead.last_seen_ns = 1;
    w.s.set_flow(w.f, dead);
    const Bytes bytes = race.frame(1, 7, kGeneration + 1);
    Verdict verdict{};
    at_once([&] { verdict = verdict_of(race.shoot(bytes)); }, [&] { w.s.forget(w.f, 1000000); });
    REQUIRE(verdict != Verdict::kRefused);
    if (verdict == Verdict::kDone) {  // committed: then it is there
      REQUIRE(w.s.flow(w.f));
      REQUIRE(w.s.flow(w.f)->owner.is.owner == 7);
    }
    lost += verdict == Verdict::kDropped;
  }
  if (lost > 0) WARN(lost << " of " << kRounds << " were dropped, to be sent again");
}
