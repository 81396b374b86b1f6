// SPDX-License-Identifier: MIT
// GONE and RENEW: the owner's word on its own flow. They are not answered.
#include "bpf/switch_rig.hpp"

using namespace rig;
using namespace packets;

namespace {

constexpr unsigned kGeneration = 1000;

Result send(const World& w, const abi::wire_header& header) {
  return w.s.from_node(control(w.f, header));
}

}  // namespace

TEST_CASE("control: GONE closes the owner's own flow") {
  SWITCH_WORLD(w);
  w.s.set_flow(w.f, Rig::owned(2, 1, kGeneration, true));
  const auto gone = [&](unsigned sender, unsigned generation) {
    const Result r = send(w, transfer(w.f, abi::WIRE_GONE, sender, 0, generation));
    CHECK(r.action == Action::kDrop);
    return r.counted;
  };
  CHECK(gone(1, kGeneration) == Counts{{"refused_not_entitled", 1}});
  CHECK(gone(1, kGeneration - 1) ==
        Counts{{"gone_late", 1}});  // it refused, and was not the last to be asked
  CHECK(gone(2, kGeneration - 1) == Counts{{"refused_stale", 1}});
  CHECK_FALSE(w.s.flow(w.f)->marks.is.closing);
  CHECK(gone(2, kGeneration) == Counts{{"gone", 1}});
  CHECK(w.s.flow(w.f)->marks.is.closing);
  const auto closing = w.s.flow(w.f)->closing_ns;
  CHECK(gone(2, kGeneration) == Counts{{"gone_late", 1}});
  CHECK(w.s.flow(w.f)->closing_ns == closing);
  CHECK(w.s.from_client(w.tcp_in({.flags = kSyn})).counted ==
        Counts{{"reopened", 1}, {"to_dispatcher", 1}});
  CHECK(gone(2, kGeneration) == Counts{{"gone_late", 1}});  // it has ended
  CHECK(send(w, transfer(w.f, abi::WIRE_RENEW, 2, 0, kGeneration)).counted ==
        Counts{{"refused_not_entitled", 1}});
  tcpmig::sys::map_delete(w.s.map("flows"), key_of(w.f));
  CHECK(gone(2, kGeneration) == Counts{{"gone_late", 1}});
}

TEST_CASE("control: RENEW starts the lease again and contradicts a client's RST") {
  SWITCH_WORLD(w);
  auto entry = Rig::owned(2, 1, kGeneration, true);
  entry.last_seen_ns -= 5000000000;
  w.s.set_flow(w.f, entry);
  w.s.from_client(w.tcp_in({.flags = kRst}));
  entry = w.s.flow(w.f).value();
  CHECK(entry.marks.is.client_rst);
  entry.last_seen_ns -= 5000000000;
  w.s.set_flow(w.f, entry);
  const auto renew = [&](unsigned sender, unsigned generation) {
    return send(w, transfer(w.f, abi::WIRE_RENEW, sender, 0, generation)).counted;
  };
  CHECK(renew(1, kGeneration) == Counts{{"refused_not_entitled", 1}});
  CHECK(renew(2, kGeneration + 1) == Counts{{"refused_stale", 1}});
  CHECK(w.s.flow(w.f)->last_seen_ns == entry.last_seen_ns);
  CHECK(renew(2, kGeneration) == Counts{{"renewed", 1}});
  CHECK(w.s.flow(w.f)->last_seen_ns > entry.last_seen_ns + 4000000000);
  CHECK_FALSE(w.s.flow(w.f)->marks.is.client_rst);
}

TEST_CASE("control: GONE and RENEW of an unknown service") {
  SWITCH_WORLD(w);
  for (const auto type : {abi::WIRE_GONE, abi::WIRE_RENEW}) {
    abi::wire_header h = transfer(w.f, type, 2, 0, kGeneration);
    h.service = htons(77);
    const Result r = send(w, h);
    CHECK(r.action == Action::kDrop);
    CHECK(r.counted == Counts{{"refused_unknown_service", 1}});
  }
}
