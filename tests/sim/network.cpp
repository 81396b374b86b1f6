// SPDX-License-Identifier: MIT
#include "sim/network.hpp"

#include <cstdio>
#include <cstdlib>
#include <functional>

#include "sim/client.hpp"
#include "sim/dispatcher.hpp"
#include "sim/host_maps.hpp"
#include "sim/server.hpp"
#include "sim/switch_run.hpp"

namespace tcpmig::sim {
namespace {

constexpr Millis kEnd = 600'000;
constexpr Millis kLatency = 1;
constexpr std::array<Millis, 4> kDelays{5, 120, 2'500, 6'000};
constexpr std::uint8_t kAck = 16, kRst = 4, kFin = 1;
constexpr std::uint32_t kPayload = 100;  // bytes, of a segment that has some

}  // namespace

Network::Network(const Scenario& scenario, Chooser& chooser)
    : scenario_(scenario), chooser_(chooser), faults_left_(scenario.faults) {
  host_set_now_ns(now_ns());
}

void Network::after(Millis delay, const Task& what) {
  events_.push({now_ + delay, ++order_, what});
}

void Network::run_to_rest() {
  while (!events_.empty() && now_ < kEnd) {
    if (kills_ < scenario_.kills) strike();
    const Event event = events_.top();
    events_.pop();
    now_ = event.when;
    host_set_now_ns(now_ns());
    event.what();
  }
}

/// Before each step anybody may die; how often, the chooser knows.
void Network::strike() {
  const Victim victim = chooser_.victim();
  if (victim == Victim::kNobody ||
      !(victim == Victim::kTable ? scenario_.loses_table : scenario_.crashes))
    return;
  ++kills_;
  say("KILL %u", static_cast<unsigned>(victim));
  killed_.at(static_cast<std::size_t>(victim)) = true;
  switch (victim) {
    case Victim::kDispatcher:
      return parties_.dispatcher->kill();
    case Victim::kAgent1:
    case Victim::kAgent2:
    case Victim::kAgent3:
      return parties_.servers
          .at(static_cast<std::size_t>(victim) - static_cast<std::size_t>(Victim::kAgent1))
          ->kill_agent();
    case Victim::kSwitchRun:
      return parties_.switch_run->kill();
    case Victim::kTable:
      return lose_table();
    case Victim::kNobody:
      return;
  }
}

/// The nodes see the new boot in the answer to their next heartbeat.
void Network::lose_table() {
  sim_switch_lose_table(kRecovery * 1'000'000);
  seen_.clear();
  ++boot_;
  for (Server* server : parties_.servers)
    after(1 + 33 * chooser_.sequel(4), [server, boot = boot_] { server->hears_boot(boot); });
  after(1 + 33 * chooser_.sequel(4),
        [dispatcher = parties_.dispatcher, boot = boot_] { dispatcher->hears_boot(boot); });
}

void Network::say(const char* what, unsigned a, unsigned b, unsigned c, unsigned d) const {
  static const bool wanted = std::getenv("TCPMIG_SIM_TRACE") != nullptr;
  if (!wanted) return;
  const sim_owner owner = sim_switch_owner();
  std::printf("%7llu owner %u gen %u%s%s | ", static_cast<unsigned long long>(now_), owner.owner,
              owner.generation, owner.spoke ? " spoke" : "", owner.closing ? " closing" : "");
  std::printf(what, a, b, c, d);
  std::printf("\n");
}

/// One decision for each datagram.
void Network::carry(const Task& deliver, bool is_data) {
  const unsigned fate = faults_left_ > 0 ? chooser_.fault(5) : 0;
  if (fate != 0) --faults_left_;
  if (fate == 1 || fate == 4) (is_data ? hurt_parts_ : hurt_) = true;
  if (fate == 1) return;
  if (fate == 2) after(kLatency, deliver);  // and once more
  // A switch without its table believes what is announced: so nothing may be on its way for as long as it takes a dead agent to
  // come back. (A COMMIT of the lost table that comes then is opened and announced, while its successor cannot say a word.)
  const unsigned longest = scenario_.loses_table ? 2 : 3;
  const Millis late = fate == 3   ? kDelays[0]
                      : fate == 4 ? kDelays.at(1 + chooser_.pick(longest))
                                  : 0;
  after(kLatency + late, deliver);
}

void Network::from_client(const ClientSegment& segment) {
  carry([this, segment] { at_switch_from_client(segment); });
}

void Network::at_switch_from_client(const ClientSegment& segment) {
  const sim_segment seen{kAck, segment.data.empty() ? 0 : kPayload, segment.seq, segment.answer};
  const auto node = static_cast<std::uint16_t>(sim_switch_inward(&seen));
  say("client seq %u +%u ack %u -> node %u", segment.seq, segment.data.size(), segment.answer,
      node);
  if (node == kDispatcher)
    carry([this, segment] { parties_.dispatcher->receives(segment); });
  else if (node == kOtherDispatcher)  // no socket: its kernel answers
    carry([this, segment] {
      from_node({.node = kOtherDispatcher, .seq = segment.answer, .reset = true});
    });
  else if (node != 0)
    carry([this, node, segment] { server(node).receives(segment); });
}

void Network::from_node(const Segment& segment) {
  carry([this, segment] { at_switch_from_node(segment); });
}

void Network::at_switch_from_node(const Segment& segment) {
  if (mutated(Mutation::kNoPointOfNoReturn)) sim_switch_forget_spoke();
  const auto flags =
      static_cast<std::uint8_t>(kAck | (segment.reset ? kRst : 0) | (segment.fin ? kFin : 0));
  const sim_segment seen{flags, segment.parts != 0 ? kPayload : 0,
                         segment.reset ? segment.seq : segment.part, segment.acknowledged};
  const bool passed = sim_switch_outward(segment.node, &seen);
  say(segment.reset ? "RST of node %u, seq %u ack %u: %u" : "node %u says part %u ack %u: %u",
      segment.node, segment.reset ? segment.seq : segment.part + 10 * segment.parts,
      segment.acknowledged, passed);
  if (passed) {
    const sim_owner owner = sim_switch_owner();
    if (segment.life != 0 && owner.owner != 0 && !server(segment.node).is_frozen(segment.life) &&
        control::newer(owner.generation, server(segment.node).generation_of(segment.life)))
      violation_ =
          "the switch lets a connection speak that is not the one it has given the flow to";
    carry([this, segment] { parties_.client->receives(segment); });
  }
  parties_.switch_run->read_revocations();
}

void Network::reset_client(unsigned seq) {
  carry([this, seq] { parties_.client->receives({.node = kSwitch, .seq = seq, .reset = true}); });
}

void Network::to_switch(Message message) {
  message.number = ++numbers_;
  carry([this, message] { at_switch(message); }, message.type == abi::WIRE_DATA);
}

void Network::bounce(const Message& message, std::uint8_t type, std::uint8_t reason,
                     std::uint32_t current) {
  Message answer = message;
  answer.type = type;
  answer.reason = reason;
  answer.current = current;
  answer.sender = kSwitch;
  answer.target = message.sender;
  answer.boot = boot_;
  to_node(answer);
}

void Network::at_switch(const Message& message) {
  if (message.type == abi::WIRE_GONE || message.type == abi::WIRE_RENEW) {
    if (message.type == abi::WIRE_GONE)
      sim_switch_gone(message.sender, message.generation);
    else
      sim_switch_renew(message.sender, message.generation);
    return parties_.switch_run->read_revocations();
  }
  if (seen_.size() <= message.number) seen_.resize(message.number + 32);
  if (seen_[message.number]) return bounce(message, abi::WIRE_REFUSED, abi::REASON_REPLAY, 0);
  seen_[message.number] = true;
  sim_commit commit{message.generation,
                    message.current,
                    message.sender,
                    message.target,
                    message.boot,
                    message.delivered,
                    message.type == abi::WIRE_DATA};
  if (mutated(Mutation::kNoGenerationCheck)) {
    const sim_owner owner = sim_switch_owner();
    if (owner.owner != 0)
      commit.first = commit.generation = control::next_generation(owner.generation);
  }
  if (mutated(Mutation::kNoPointOfNoReturn)) sim_switch_forget_spoke();
  std::uint32_t current = 0;
  const int outcome = sim_switch_commit(&commit, &current);
  say("at switch: %u from %u gen %u: %d", message.type + 10000U * message.part, message.sender,
      message.generation, static_cast<unsigned>(outcome));
  if (outcome == -2) return;
  if (outcome <= 0 && !commit.is_data) parties_.switch_run->committed();
  if (outcome < 0) return bounce(message, abi::WIRE_RESUMED, 0, message.generation);
  if (outcome > 0)
    return bounce(message, abi::WIRE_REFUSED, static_cast<std::uint8_t>(outcome), current);
  to_node(message);
}

void Network::to_node(const Message& message) {
  carry([this, message] { deliver(message); }, message.type == abi::WIRE_DATA);
}

void Network::deliver(const Message& message) {
  say("message %u from %u to %u gen %u",
      message.type + 100U * message.reason + 10000U * message.part, message.sender, message.target,
      message.generation);
  if (message.target == kDispatcher)
    parties_.dispatcher->hears(message);
  else if (message.target >= kServer0)
    server(message.target).hears(message);
}

}  // namespace tcpmig::sim
