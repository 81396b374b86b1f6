// SPDX-License-Identifier: MIT
// What the switch knows of a client that waits for its dispatcher, and how it ends a connection whose
// node is dead.
#include "bpf/switch_rig.hpp"

using namespace rig;
using namespace packets;

namespace {

constexpr unsigned kGeneration = 1000;
constexpr std::uint64_t kSecond = 1'000'000'000;

Counts counted(World& w, const std::function<void()>& act) {
  const Counts before = w.s.counters();
  act();
  Counts moved;
  for (const auto& [name, value] : w.s.counters()) {
    const auto found = before.find(name);
    const std::uint64_t was = found == before.end() ? 0 : found->second;
    if (value != was) moved[name] = value - was;
  }
  return moved;
}

abi::reap_request of_flow(const Family& f, abi::flow_owner owner) {
  abi::reap_request request{};
  request.key = key_of(f);
  request.owner = owner;
  request.counter = abi::SW_REAPED_TRANSFER;
  return request;
}

abi::reap_request of_binding(const Family& f, unsigned dispatcher, std::uint64_t before_ns,
                             abi::switch_counter counter = abi::SW_RESET_DEAD_DISPATCHER) {
  abi::reap_request request{};
  request.key = key_of(f);
  request.owner.is.owner = dispatcher & 1023;
  request.before_ns = before_ns;
  request.counter = static_cast<std::uint32_t>(counter);
  return request;
}

/// A client of dispatcher 1 that has sent half a request.
void half_a_request(World& w) {
  w.s.from_client(w.tcp_in({.seq = 999, .flags = kSyn}));
  w.s.from_client(w.tcp_in({.seq = 1000, .ack = 7000, .flags = kAck}));
  w.s.from_client(
      w.tcp_in({.seq = 1000, .ack = 7000, .flags = kAck | kPsh, .payload = Bytes(50, 'x')}));
}

}  // namespace

TEST_CASE("affinity: learns where a client and its dispatcher are in their connection") {
  SWITCH_WORLD(w);
  w.s.from_client(w.tcp_in({.seq = 999, .flags = kSyn}));
  CHECK_FALSE(w.s.bound(w.f)->acked);  // a RST would have no number yet
  w.s.from_client(w.tcp_in({.seq = 1000, .ack = 7000, .flags = kAck}));
  auto bound = w.s.bound(w.f).value();
  CHECK(bound.acked);
  CHECK(bound.client_ack == 7000);
  w.s.from_client(
      w.tcp_in({.seq = 1000, .ack = 7100, .flags = kAck | kFin, .payload = Bytes(50, 'x')}));
  bound = w.s.bound(w.f).value();
  CHECK(bound.client_ack == 7100);
  w.s.from_client(w.tcp_in({.seq = 1234, .ack = 1, .flags = kAck | kRst}));  // an end, no number
  CHECK(w.s.bound(w.f)->client_ack == 7100);
  w.s.from_client(w.tcp_in({.seq = 5, .flags = kSyn}));  // the port is used again
  CHECK_FALSE(w.s.bound(w.f)->acked);
  w.s.from_client(w.tcp_in({.seq = 6, .ack = 3, .flags = kAck}));  // below the old ones
  CHECK(w.s.bound(w.f)->client_ack == 3);
}

TEST_CASE("affinity: a binding that is made in the midst of a connection has its numbers at once") {
  SWITCH_WORLD(w);
  w.s.from_client(w.tcp_in({.seq = 50, .ack = 60, .flags = kAck, .payload = Bytes(5, 'x')}));
  const auto bound = w.s.bound(w.f).value();
  CHECK(bound.acked);
  CHECK(bound.client_ack == 60);
}

TEST_CASE("affinity: a SYN is noted exactly, other packets to a second") {
  SWITCH_WORLD(w);
  half_a_request(w);
  const std::uint64_t first = w.s.bound(w.f)->last_seen_ns;
  const auto half_ago = [&](std::uint8_t flags) {
    auto bound = w.s.bound(w.f).value();
    bound.last_seen_ns = first - kSecond / 2;
    tcpmig::sys::map_update(w.s.map("affinity"), key_of(w.f), bound);
    w.s.from_client(w.tcp_in({.seq = 1, .ack = 1, .flags = flags}));
    return w.s.bound(w.f)->last_seen_ns >= first;
  };
  CHECK_FALSE(half_ago(kAck));
  CHECK(half_ago(kSyn));
}

TEST_CASE(
    "a dispatcher that is down: what is bound to it goes to another, and it may still speak") {
  SWITCH_WORLD(w);
  w.s.bind(w.f, 5);  // Maglev says 1
  w.s.set_node(5, [](auto& node) { node.down = 1; });
  CHECK(w.s.from_node(w.tcp_out(5, {.source = kPort, .flags = kAck})).counted ==
        Counts{{"from_node", 1}});
  const Result r = w.s.from_client(w.tcp_in({.seq = 5, .ack = 6, .flags = kAck}));
  CHECK(r.view().destination == w.f.vpa(1));
  CHECK(w.s.bound(w.f)->dispatcher == 1);
  CHECK(w.s.bound(w.f)->client_ack == 6);
  w.s.set_node(1, [](auto& node) { node.down = 1; });
  CHECK(w.s.from_client(w.tcp_in({.flags = kSyn})).counted == Counts{{"drop_no_dispatcher", 1}});
}

TEST_CASE("reap: a client whose dispatcher is dead is let go, with the numbers of its RST") {
  SWITCH_WORLD(w);
  half_a_request(w);
  const std::uint64_t later = now_ns() + kSecond;
  CHECK(w.s.reap(of_binding(w.f, 5, later)).reaped == 0);               // another's
  CHECK(w.s.reap(of_binding(w.f, 1, now_ns() - kSecond)).reaped == 0);  // heard of since
  REQUIRE(w.s.bound(w.f));
  abi::reap_request done{};
  CHECK(counted(w, [&] { done = w.s.reap(of_binding(w.f, 1, later)); }) ==
        Counts{{"reset_dead_dispatcher", 1}});
  CHECK(done.reaped == 1);
  CHECK(done.client_ack == 7000);
  CHECK_FALSE(w.s.bound(w.f));
  CHECK(w.s.reap(of_binding(w.f, 1, later)).reaped == 0);
  half_a_request(w);
  CHECK(counted(w, [&] {
          w.s.reap(of_binding(w.f, 1, later, abi::SW_RESET_RESTARTED_DISPATCHER));
        }) == Counts{{"reset_restarted_dispatcher", 1}});
}

TEST_CASE("reap: no client that has not answered the handshake, and none whose flow has an owner") {
  SWITCH_WORLD(w);
  const std::uint64_t later = now_ns() + 10 * kSecond;
  w.s.from_client(w.tcp_in({.seq = 999, .flags = kSyn}));
  CHECK(w.s.reap(of_binding(w.f, 1, later)).reaped == 0);
  half_a_request(w);
  w.s.set_flow(w.f, Rig::owned(2, 1, kGeneration, true));
  CHECK(w.s.reap(of_binding(w.f, 1, later)).reaped == 0);
  CHECK(w.s.bound(w.f));
}

TEST_CASE("reap: a connection that was transferred is not its former dispatcher's any more") {
  SWITCH_WORLD(w);
  half_a_request(w);
  const Result r = w.s.from_node(control(w.f, transfer(w.f, abi::WIRE_COMMIT, 1, 2, kGeneration)));
  REQUIRE(r.counted == Counts{{"committed", 1}});
  CHECK(w.s.bound(w.f)->moved);
  tcpmig::sys::map_delete(w.s.map("flows"), key_of(w.f));  // ended, and swept
  CHECK(w.s.reap(of_binding(w.f, 1, now_ns() + kSecond)).reaped == 0);
  w.s.from_client(w.tcp_in({.seq = 1, .flags = kSyn}));  // the next one of the same name
  CHECK_FALSE(w.s.bound(w.f)->moved);
}

TEST_CASE("reap: a flow caught in a transfer becomes nobody's, unless its owner speaks") {
  SWITCH_WORLD(w);
  half_a_request(w);
  w.s.set_flow(w.f, Rig::owned(2, 1, kGeneration, false));
  const abi::flow_owner silent = w.s.flow(w.f)->owner;
  w.s.from_node(w.tcp_out(2, {.flags = kAck}));
  CHECK(w.s.reap(of_flow(w.f, silent)).reaped == 0);
  CHECK(w.s.flow(w.f)->owner.is.owner == 2);

  w.s.set_flow(w.f, Rig::owned(2, 1, kGeneration, false));
  w.s.from_client(w.tcp_in({.seq = 1050, .ack = 7000, .flags = kAck}));
  abi::reap_request done{};
  CHECK(counted(w, [&] { done = w.s.reap(of_flow(w.f, silent)); }) ==
        Counts{{"reaped_transfer", 1}});
  CHECK(done.reaped == 1);
  CHECK(done.client_ack == 7000);
  CHECK(w.s.flow(w.f)->owner.is.owner == 0);
  CHECK(w.s.flow(w.f)->owner.is.generation == kGeneration + 1);
  w.s.revocations();
  CHECK(w.s.from_node(w.tcp_out(2, {.flags = kAck, .payload = Bytes(9, 'x')})).action ==
        Action::kDrop);
  const auto told = w.s.revocations();  // it wakes up, and is told to end it
  REQUIRE(told.size() == 1);
  CHECK(told[0].generation == kGeneration + 1);
  CHECK(w.s.reap(of_flow(w.f, silent)).reaped == 0);
}
