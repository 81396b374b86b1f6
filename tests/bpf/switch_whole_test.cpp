// SPDX-License-Identifier: MIT
// A server gives a whole connection to another one.
#include "bpf/switch_rig.hpp"

using namespace rig;
using namespace packets;

namespace {

constexpr unsigned kGeneration = 1000;

Result send(const World& w, const abi::wire_header& header) {
  return w.s.from_node(control(w.f, header, {}));
}

}  // namespace

TEST_CASE("control: a server hands its connection on as a whole, and takes it back") {
  SWITCH_WORLD(w);
  w.s.from_node(control(w.f, transfer(w.f, abi::WIRE_COMMIT, 1, 2, kGeneration), {}));
  w.s.from_node(w.tcp_out(2, {.seq = 1, .flags = kAck}));
  w.s.from_client(w.tcp_in({.ack = 5000, .flags = kAck}));
  REQUIRE(w.s.flow(w.f)->client_ack == 5000);
  const auto whole = [&](unsigned target, unsigned generation) {
    abi::wire_header h = transfer(w.f, abi::WIRE_COMMIT, 2, target, generation);
    h.flags = abi::WIRE_FLAG_WHOLE;
    h.version = abi::WIRE_VERSION_WHOLE;
    h.parts = htons(abi::WIRE_WHOLE_PARTS_MAX);
    h.part = htons(abi::WIRE_WHOLE_PARTS_MAX - 1);
    h.snd_nxt = htonl(4000);
    return h;
  };
  for (const unsigned version : {unsigned{abi::WIRE_VERSION}, 3U}) {
    abi::wire_header old = whole(7, kGeneration + 1);
    old.version = static_cast<std::uint8_t>(version);
    CHECK(send(w, old).counted == Counts{{"drop_bad_message", 1}});
  }
  abi::wire_header unknown = whole(7, kGeneration + 1);
  unknown.flags |= 128;
  CHECK(send(w, unknown).counted == Counts{{"drop_bad_message", 1}});
  abi::wire_header data = whole(7, kGeneration + 1);
  data.type = abi::WIRE_DATA;
  CHECK(send(w, data).counted == Counts{{"data_steered", 1}});
  CHECK(send(w, whole(7, kGeneration + 1)).counted == Counts{{"committed", 1}});
  const auto moved = w.s.flow(w.f);
  CHECK(moved->owner.is.owner == 7);
  CHECK(moved->owner.is.previous == 2);
  CHECK(moved->snd_nxt == 4000);     // where its first word may begin
  CHECK(moved->client_ack == 5000);  // what the client has said is newer
  abi::wire_header back = transfer(w.f, abi::WIRE_COMMIT, 2, 2, kGeneration + 2);
  back.flags = abi::WIRE_FLAG_TAKE_BACK;
  CHECK(send(w, back).counted == Counts{{"taken_back", 1}});
  CHECK(w.s.flow(w.f)->owner.is.owner == 2);
  // what it says of the generation that it had before ends nothing
  abi::wire_header gone = transfer(w.f, abi::WIRE_GONE, 2, 0, kGeneration);
  CHECK(send(w, gone).counted == Counts{{"refused_stale", 1}});
}
