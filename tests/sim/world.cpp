// SPDX-License-Identifier: MIT
#include "sim/world.hpp"

#include <algorithm>

#include <arpa/inet.h>

#include "sim/host_maps.hpp"
#include "sim/network.hpp"
#include "sim/parties.hpp"
#include "sim/switch_host.h"

namespace tcpmig::sim {

unsigned AllChoices::pick(unsigned n) {
  if (at_ >= depth_) return 0;
  if (at_ == path_.size()) path_.push_back({0, n});
  return path_[at_++].taken;
}

bool AllChoices::next() {
  at_ = 0;
  while (!path_.empty() && path_.back().taken + 1 == path_.back().of) path_.pop_back();
  if (path_.empty()) return false;
  ++path_.back().taken;
  return true;
}

namespace {

/// What must hold when everything has come to rest.
std::string judge(const Scenario& scenario, const Client& client, const Dispatcher& dispatcher,
                  const std::array<std::unique_ptr<Server>, kServers>& servers) {
  if (!client.violation().empty()) return client.violation();
  unsigned executions = 0, zombies = 0;
  for (const auto& server : servers) {
    executions += server->executions();
    zombies += server->has_zombie() ? 1 : 0;
  }
  if (!scenario.idempotent && executions > 1) return "a request ran twice that must not";
  if (!scenario.idempotent && executions > 0 && client.speaker() == kDispatcher &&
      dispatcher.said_not_executed())
    return "a request ran of which the client was told that it did not";
  if (client.end() == Client::End::kNone) return "the client waits for ever";
  const bool killed = dispatcher.was_killed() ||
                      std::ranges::any_of(servers, [](const auto& s) { return s->was_killed(); });
  if (!killed && !dispatcher.has_left() && client.end() != Client::End::kAnswered)
    return "nobody died, and the client's connection was broken";
  const std::uint16_t speaker = client.speaker();
  const unsigned taken = speaker == kDispatcher ? dispatcher.accepted()
                         : speaker != kSwitch   ? servers[speaker - kServer0]->accepted()
                                                : client.acknowledged();
  if (taken < client.acknowledged() && !dispatcher.was_killed() && !dispatcher.has_left())
    return "bytes that were acknowledged never reached the owner";
  if (!dispatcher.released()) return "the dispatcher still holds the frozen connection";
  if (zombies > 0) return "a server still holds a connection that it does not own";
  return {};
}

}  // namespace

std::string run(const Scenario& scenario, Chooser& chooser) {
  static const bool set_up = [] {
    sim_switch_set_up(kServer0 + kServers - 1, kDispatcher, 60'000'000'000, 3'600'000'000'000);
    return true;
  }();
  static_cast<void>(set_up);
  sim_switch_clear();
  Network network(scenario, chooser);
  Client client(network);
  std::array<std::unique_ptr<Server>, kServers> servers;
  std::array<Server*, kServers> plain{};
  for (std::uint16_t i = 0; i < kServers; ++i) {
    servers[i] = std::make_unique<Server>(network, static_cast<std::uint16_t>(kServer0 + i));
    plain[i] = servers[i].get();
  }
  Dispatcher dispatcher(network);
  network.connect(client, dispatcher, plain);
  if (scenario.loses_table) {
    static constexpr std::array<Millis, 8> kWhen{1, 2, 3, 4, 60, 500, 2'100, 4'300};
    if (const unsigned when = chooser.pick(12); when >= 1 && when <= kWhen.size())
      network.after(kWhen[when - 1], [&network] { network.lose_table(); });
  }
  client.connect();
  dispatcher.start();
  network.run_to_rest();
  return judge(scenario, client, dispatcher, servers);
}

}  // namespace tcpmig::sim
