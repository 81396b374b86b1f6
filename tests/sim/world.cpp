// SPDX-License-Identifier: MIT
#include "sim/world.hpp"

#include <algorithm>
#include <array>
#include <memory>

#include "sim/client.hpp"
#include "sim/dispatcher.hpp"
#include "sim/network.hpp"
#include "sim/server.hpp"
#include "sim/switch_run.hpp"

namespace tcpmig::sim {
namespace {

using Failure = control::TransferMachine::Failure;

/// All parties of a run, and what must hold when everything has come to rest.
class World {
 public:
  World(const Scenario& scenario, Chooser& chooser);
  std::string run();

 private:
  static Letters request(Chooser& chooser) {
    return Letters(chooser.pick(2) == 0 ? "A" : "ABC");  // a part for each
  }
  void begin_at_server();
  [[nodiscard]] std::string judge();
  [[nodiscard]] std::string judge_executions();
  [[nodiscard]] std::string judge_bytes() const;
  [[nodiscard]] std::string judge_ends() const;
  [[nodiscard]] const Stream* owners() const;
  [[nodiscard]] bool acknowledged_are_lost() const;
  [[nodiscard]] bool has_left() const;
  [[nodiscard]] bool mover_was_killed() const;
  [[nodiscard]] const Departure* departure() const { return servers_[0]->departure(); }

  const Scenario& scenario_;
  Network network_;
  Letters request_;
  Client client_;
  Dispatcher dispatcher_;
  SwitchRun switch_run_;
  std::array<std::unique_ptr<Server>, kServers> servers_;
};

World::World(const Scenario& scenario, Chooser& chooser)
    : scenario_(scenario),
      network_(scenario, chooser),
      request_(request(chooser)),
      client_(network_, request_),
      dispatcher_(network_, request_),
      switch_run_(network_) {
  Network::Parties parties{&client_, &dispatcher_, &switch_run_, {}};
  for (std::uint16_t i = 0; i < kServers; ++i) {
    servers_[i] = std::make_unique<Server>(network_, static_cast<std::uint16_t>(kServer0 + i));
    parties.servers[i] = servers_[i].get();
  }
  network_.connect(parties);
}

/// The switch knows of an earlier transfer, and that its server has spoken.
void World::begin_at_server() {
  std::uint32_t current = 0;
  const sim_commit earlier{kFirstGeneration, kFirstGeneration, kDispatcher, kServer0, 1, 0, false};
  sim_switch_commit(&earlier, &current);
  sim_switch_renew(kServer0, kFirstGeneration);
  dispatcher_.stand_by();
  servers_[0]->begin_with(request_);
}

std::string World::run() {
  constexpr std::uint8_t kSyn = 2, kAck = 16;
  const sim_segment syn{kSyn, 0, 0, 0}, request{kAck, 100, 0, 0};
  sim_switch_inward(&syn);  // so the connection is bound to its dispatcher
  sim_switch_inward(&request);
  client_.connect();
  if (scenario_.between_servers)
    begin_at_server();
  else
    dispatcher_.start();
  network_.run_to_rest();
  return judge();
}

bool World::has_left() const {
  return dispatcher_.has_left() || (departure() != nullptr && departure()->has_left());
}

bool World::mover_was_killed() const {
  return network_.was_killed(scenario_.between_servers ? Victim::kAgent1 : Victim::kDispatcher);
}

std::string World::judge() {
  if (!client_.violation().empty()) return client_.violation();
  if (!network_.violation().empty()) return network_.violation();
  for (const std::string& broken : {judge_executions(), judge_bytes(), judge_ends()})
    if (!broken.empty()) return broken;
  return {};
}

std::string World::judge_executions() {
  unsigned executions = 0;
  for (const auto& server : servers_) executions += server->executions();
  if (scenario_.between_servers) {
    if (executions > 1) return "a connection that is given away was taken twice";
    if (executions > 0 && departure() != nullptr && departure()->came_back() &&
        departure()->failure() != Failure::kNoAnswer)
      return "a program goes on with a connection that another server has taken";
    return {};
  }
  if (scenario_.idempotent) return {};
  if (executions > 1) return "a request ran twice that must not";
  if (executions > 0 && client_.speaker() == kDispatcher && dispatcher_.said_not_executed())
    return "a request ran of which the client was told that it did not";
  return {};
}

/// Of what the client's owner has taken in; nullptr: nobody owns it.
const Stream* World::owners() const {
  if (client_.speaker() == kDispatcher) return &dispatcher_.socket();
  const std::uint32_t owner = sim_switch_owner().owner;
  return owner >= kServer0 ? servers_.at(owner - kServer0)->stream() : nullptr;
}

/// What somebody has acknowledged, and a kill has taken away: nobody has it any more.
bool World::acknowledged_are_lost() const {
  const Stream* stream = owners();
  return stream != nullptr && stream->next() < client_.acknowledged();
}

/// What a program has read is what the client has sent, from the beginning, each byte once.
std::string World::judge_bytes() const {
  const auto is_beginning = [&](const Letters& read) {
    return client_.sent().view().starts_with(read.view());
  };
  bool good = is_beginning(dispatcher_.socket().letters());
  for (const auto& server : servers_)
    good = good && std::ranges::all_of(server->read(), is_beginning) &&
           (server->stream() == nullptr || is_beginning(server->stream()->letters()));
  if (!good) return "bytes of the client were lost, doubled or mixed up";
  if (acknowledged_are_lost() && !mover_was_killed() && !has_left())
    return "bytes that were acknowledged never reached the owner";
  return {};
}

std::string World::judge_ends() const {
  // Two seconds of silence of the switch: nothing better can be known.
  if (dispatcher_.returned_unheard() || (departure() != nullptr && departure()->returned_unheard()))
    return {};
  // What is said to a client that only listens may be lost; and a switch without its table does not know of it.
  const bool unreachable =
      client_.is_silent() && (network_.hurt() || network_.was_killed(Victim::kTable));
  if (client_.end() == Client::End::kNone && !acknowledged_are_lost() && !unreachable)
    return "the client waits for ever";
  const bool nobody_died = !scenario_.crashes || !network_.anybody_killed();
  if (nobody_died && !has_left() && !unreachable && client_.end() != Client::End::kAnswered)
    return "nobody died, and the client's connection was broken";
  const bool moved = scenario_.between_servers ? departure() != nullptr && departure()->has_moved()
                                               : dispatcher_.has_moved();
  if (moved && !network_.hurt() && !network_.anybody_killed() && client_.sent_again())
    return "nothing was lost, and the client had to send again";
  if (scenario_.between_servers && servers_[1]->listens() && departure() != nullptr &&
      !network_.anybody_killed() && !network_.hurt_but_for_parts() && !departure()->has_moved())
    return "only parts of a transfer were lost, and it failed";
  if (!dispatcher_.released() && client_.speaker() != kDispatcher)
    return "the dispatcher still holds the frozen connection";
  for (const auto& server : servers_) {
    if (!server->can_renew()) return "the switch does not take the word of an owner that lives";
    if (server->has_zombie()) return "a server still holds a connection that it does not own";
    if (server->holds_frozen()) return "a connection stays frozen";
  }
  return {};
}

}  // namespace

std::string run(const Scenario& scenario, Chooser& chooser) {
  static const bool set_up = [] {
    sim_switch_set_up(kServer0 + kServers - 1, kOtherDispatcher, 60'000'000'000, 3'600'000'000'000);
    return true;
  }();
  static_cast<void>(set_up);
  sim_switch_clear();
  return World(scenario, chooser).run();
}

}  // namespace tcpmig::sim
