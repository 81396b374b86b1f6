// SPDX-License-Identifier: MIT
// What a forged control datagram costs the switch, against what a real transfer costs: the time of the real programs under
// BPF_PROG_TEST_RUN, by the kernel's clock, one packet a run. Everything in one run, in turns, so that the ratios hold on a busy machine.
#define CATCH_CONFIG_RUNNER  // the rig has checks; here are no test cases
#include "catch.hpp"

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <string>
#include <vector>

#include "bpf/flood.hpp"

namespace {

using namespace rig;
using packets::kSyn;

constexpr int kRounds = 15, kPackets = 2'000;

struct Line {
  std::string name;
  std::function<std::uint32_t()> fire;  ///< one packet, nanoseconds
  std::vector<double> rounds;
};

double median(std::vector<double> values) {
  std::ranges::sort(values);
  return values[values.size() / 2];
}

/// The first transfer of a connection: the entry is made, and taken away again outside of the time.
std::uint32_t transfer_once(const World& w, flood::Gun& gun) {
  constexpr std::uint16_t kPortOfItsOwn = 30'000;
  abi::wire_header h = transfer(w.f, abi::WIRE_COMMIT, 1, 2, 5);
  h.client_port = htons(kPortOfItsOwn);
  const std::uint32_t took = gun.nodes(control(w.f, h, Bytes(200, 'p')).bytes());
  if (!tcpmig::sys::map_delete(w.s.map("flows"), key_of(w.f, kPortOfItsOwn))) {
    std::fprintf(stderr, "a transfer was refused\n");
    std::exit(1);
  }
  return took;
}

/// False: something forged costs as much as a transfer.
bool measure(Backend backend, int version) {
  World w({backend, version});
  flood::Flood flood(w, 1);
  flood::Gun gun(w);
  const Bytes data = w.tcp_in({.source = flood::kFirstPort, .payload = Bytes(200, 'd')}).bytes();
  const auto kind = [&](flood::Kind k) { return [&, k] { return gun.nodes(flood.make(k)); }; };
  std::vector<Line> lines{
      {"a transfer (COMMIT, first of its flow)", [&] { return transfer_once(w, gun); }, {}},
      {"a client's packet of an owned flow", [&] { return gun.clients(data); }, {}},
      {"random bytes", kind(flood::Kind::kRandom), {}},
      {"mutated", kind(flood::Kind::kMutated), {}},
      {"cut off", kind(flood::Kind::kTruncated), {}},
      {"a wrong tag", kind(flood::Kind::kTag), {}},
      {"replayed", kind(flood::Kind::kReplayed), {}},
      {"stale generation, right tag", kind(flood::Kind::kStale), {}},
      {"unknown node or service, right tag", kind(flood::Kind::kUnknown), {}},
      {"of a node that does not own the flow", kind(flood::Kind::kStranger), {}},
      {"from the clients' side",
       [&] { return gun.clients(flood.make(flood::Kind::kClients)); },
       {}},
  };
  for (int round = 0; round < kRounds; ++round)
    for (Line& line : lines) {
      double sum = 0;
      for (int i = 0; i < kPackets; ++i) sum += line.fire();
      line.rounds.push_back(sum / kPackets);
    }
  const double whole = median(lines.front().rounds);
  std::printf("%s, IPv%d\n", backend == Backend::kTc ? "tc" : "XDP", version);
  bool cheaper = true;
  for (const Line& line : lines) {
    std::printf("  %-40s %7.0f ns  %5.2f of a transfer\n", line.name.c_str(), median(line.rounds),
                median(line.rounds) / whole);
    cheaper = cheaper && (&line == &lines.front() || median(line.rounds) < whole);
  }
  return cheaper;
}

}  // namespace

int main() {
  if (!can_run()) return 77;
  bool cheaper = true;
  for (const Backend backend : {Backend::kTc, Backend::kXdp})
    for (const int version : {4, 6}) cheaper = measure(backend, version) && cheaper;
  if (!cheaper) std::fprintf(stderr, "something forged costs the switch as much as a transfer\n");
  return cheaper ? 0 : 1;
}
