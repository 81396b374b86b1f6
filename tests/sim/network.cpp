// SPDX-License-Identifier: MIT
#include "sim/network.hpp"

#include "sim/host_maps.hpp"
#include "sim/parties.hpp"
#include "sim/switch_host.h"

namespace tcpmig::sim {
namespace {

constexpr Millis kEnd = 600'000;
constexpr Millis kLatency = 1;
constexpr std::array<Millis, 4> kDelays{5, 120, 2'500, 6'000};

}  // namespace

void Network::connect(Client& client, Dispatcher& dispatcher,
                      const std::array<Server*, kServers>& servers) {
  client_ = &client;
  dispatcher_ = &dispatcher;
  servers_ = servers;
}

void Network::after(Millis delay, std::function<void()> what) {
  events_.push({now_ + delay, ++order_, std::move(what)});
}

/// The nodes see the new boot in the answer to their next heartbeat.
void Network::lose_table() {
  sim_switch_lose_table(kRecovery * 1'000'000);
  seen_.clear();
  for (Server* server : servers_)
    after(1 + 33 * chooser_.pick(4), [server] { server->announce(); });
  after(1 + 33 * chooser_.pick(4), [this] { dispatcher_->hears_boot(2); });
}

void Network::run_to_rest() {
  while (!events_.empty() && now_ < kEnd) {
    const Event event = events_.top();
    events_.pop();
    now_ = event.when;
    host_set_now_ns(1 + now_ * 1'000'000);
    event.what();
  }
}

/// One decision for each datagram; most runs have few faults, so most decisions are the ordinary one.
void Network::carry(const std::function<void()>& deliver) {
  const unsigned fate = faults_left_ > 0 ? chooser_.pick(5) : 0;
  if (fate != 0) --faults_left_;
  if (fate == 1) return;
  if (fate == 2) after(kLatency, deliver);  // and once more
  const Millis late = fate == 3 ? kDelays[0] : fate == 4 ? kDelays[1 + chooser_.pick(3)] : 0;
  after(kLatency + late, deliver);
}

void Network::from_client(std::uint8_t tcp_flags, unsigned piece, unsigned parts) {
  carry([this, tcp_flags, piece, parts] { at_switch_from_client(tcp_flags, piece, parts); });
}

void Network::at_switch_from_client(std::uint8_t tcp_flags, unsigned piece, unsigned parts) {
  const std::uint32_t node = sim_switch_inward(tcp_flags, piece != 0 ? 100 : 0);
  if (node == kDispatcher)
    carry([this, piece] { dispatcher_->receives(piece); });
  else if (node != 0)
    carry([this, node, piece, parts] {
      server(static_cast<std::uint16_t>(node)).receives(piece, parts);
    });
}

void Network::from_node(const Segment& segment) {
  carry([this, segment] {
    if (mutated(Mutation::kNoPointOfNoReturn)) sim_switch_forget_spoke();
    std::uint8_t flags = 16;  // ACK
    if (segment.reset) flags |= 4;
    if (segment.fin) flags |= 1;
    if (sim_switch_outward(segment.node, flags, segment.parts != 0 ? 100 : 0))
      carry([this, segment] { client_->receives(segment); });
    revoke();
  });
}

/// A node that does not own the flow is told, as the switch decides.
void Network::revoke() {
  sim_revocation told{};
  if (!sim_switch_revocation(&told) || told.node < kServer0) return;
  carry([this, told] { server(static_cast<std::uint16_t>(told.node)).revoked(told.generation); });
}

void Network::to_switch(Message message) {
  message.number = number();
  carry([this, message] { at_switch(message); });
}

void Network::bounce(const Message& message, std::uint8_t type, std::uint8_t reason,
                     std::uint32_t current) {
  Message answer = message;
  answer.type = type;
  answer.reason = reason;
  answer.current = current;
  answer.sender = kSwitch;
  answer.target = message.sender;
  to_node(answer);
}

void Network::at_switch(const Message& message) {
  if (message.type == abi::WIRE_GONE) return sim_switch_gone(message.sender, message.generation);
  if (message.type == abi::WIRE_RENEW) {
    sim_switch_renew(message.sender, message.generation);
    return revoke();
  }
  if (!seen_.insert(message.number).second)
    return bounce(message, abi::WIRE_REFUSED, abi::REASON_REPLAY, 0);
  sim_commit commit{message.generation, message.current, message.sender, message.target,
                    message.boot};
  if (mutated(Mutation::kNoGenerationCheck)) {
    const sim_owner owner = sim_switch_owner();
    if (owner.owner != 0)
      commit.first = commit.generation = control::next_generation(owner.generation);
  }
  if (mutated(Mutation::kNoPointOfNoReturn)) sim_switch_forget_spoke();
  std::uint32_t current = 0;
  const int outcome = sim_switch_commit(&commit, &current);
  if (outcome == -2) return;
  if (outcome < 0) return bounce(message, abi::WIRE_RESUMED, 0, message.generation);
  if (outcome > 0)
    return bounce(message, abi::WIRE_REFUSED, static_cast<std::uint8_t>(outcome), current);
  carry([this, message] { server(message.target).commit(message); });
}

void Network::to_node(const Message& message) {
  carry([this, message] {
    if (message.target == kDispatcher)
      dispatcher_->hears(message);
    else
      server(message.target).hears(message);
  });
}

}  // namespace tcpmig::sim
