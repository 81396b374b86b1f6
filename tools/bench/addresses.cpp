// SPDX-License-Identifier: MIT
// Does it cost anything to have many virtual private addresses on a server? 1, 10, 100, 1,000 and 10,000 services, each with a VIP
// of its own, so each with an address of its own on every node. Requests go to all of them in turns. For each number there are two labs at a
// time, one with one service and one with that many, which take turns.
#include <nlohmann/json.hpp>

#include "fetch.hpp"
#include "figures.hpp"
#include "generator.hpp"
#include "lab/interrupt.hpp"
#include "one_server.hpp"

namespace tcpmig::bench {
namespace {

using nlohmann::json;
using std::chrono::milliseconds;

constexpr unsigned kNumbers[] = {10, 100, 1'000, 10'000};

std::string services(unsigned count) {
  std::string text;
  for (unsigned i = 0; i < count; ++i)
    text +=
        web_service(i + 1, "198.18." + std::to_string(i / 250) + "." + std::to_string(i % 250 + 1));
  return text;
}

double per_second(OneServer& cluster, milliseconds length) {
  const LoadResult load = generate({.netns = cluster->node("client1").netns,
                                    .ports = &cluster.ports(),
                                    .targets = cluster.vips(),
                                    .request = closing_request("/1k"),
                                    .in_flight = 8,
                                    .length = length});
  if (load.good == 0) throw std::runtime_error("no answer: " + load.failure);
  return load.goodput();
}

OneServer with_services(const Plan& plan, unsigned count) {
  return OneServer(plan, "bn-services-" + std::to_string(count), 1, services(count));
}

}  // namespace

json addresses(const Plan& plan) {
  OneServer one = with_services(plan, 1);
  const milliseconds length(plan.quick ? 700 : 2000);
  json result;
  for (const unsigned number : kNumbers) {
    say("addresses: " + std::to_string(number));
    OneServer many = with_services(plan, number);
    per_second(one, milliseconds(300));
    per_second(many, milliseconds(300));
    std::vector<double> base, rounds;
    for (unsigned round = 0; round < plan.rounds(7); ++round) {
      lab::throw_if_interrupted();
      base.push_back(per_second(one, length));
      rounds.push_back(per_second(many, length));
    }
    result["numbers"].push_back({{"services", number},
                                 {"one_per_second", spread(base)},
                                 {"per_second", spread(rounds)},
                                 {"to_one", spread(ratios(rounds, base))}});
  }
  return result;
}

}  // namespace tcpmig::bench
