// SPDX-License-Identifier: MIT
// Departures: what programs ask, up to the freeze.
#include <arpa/inet.h>
#include <poll.h>
#include <spdlog/spdlog.h>
#include <sys/socket.h>

#include <algorithm>
#include <tcpmig/migrate.hpp>

#include "agent/departures.hpp"
#include "agent/freezer.hpp"
#include "agent/tickets.hpp"
#include "conn/repair_mode.hpp"
#include "conn/socket_lock.hpp"
#include "conn/socket_option.hpp"
#include "control/whole.hpp"
#include "handover/handover.h"

namespace tcpmig::agent {
namespace {

std::uint64_t cookie_of(int fd) {
  return conn::get_option<std::uint64_t>(fd, SOL_SOCKET, SO_COOKIE, "getsockopt SO_COOKIE");
}

bool has_hung_up(int channel) {
  pollfd state{channel, 0, 0};
  return ::poll(&state, 1, 0) > 0 && (state.revents & (POLLHUP | POLLERR)) != 0;
}

}  // namespace

struct Departures::Refused {
  int error = 0;
  std::string reason;
  std::uint64_t Counters::* counter = nullptr;
};

bool Departures::take(sys::UniqueFd& channel, conn::Parcel& parcel) {
  const char verb = conn::verb_of(parcel);
  if (verb == HANDOVER_MIGRATE && parcel.descriptors.size() == 2) {
    const auto* text = reinterpret_cast<const char*>(parcel.bytes.data());
    const std::string target(text + sizeof(handover_message), text + parcel.bytes.size());
    migrate(std::move(channel), target, std::move(parcel));
    return true;
  }
  if (verb != HANDOVER_RECOVER || parcel.descriptors.size() != 1) return false;
  recover(std::move(channel), std::move(parcel.descriptors[0]));
  return true;
}

/// Who sends a descriptor may do with its connection what he likes; but it must be one of ours.
DepartureRecord Departures::examine(int connection) const {
  const auto seen = look_at(connection);
  if (!seen) {
    int type = 0;
    socklen_t length = sizeof type;
    const bool tcp = ::getsockopt(connection, SOL_SOCKET, SO_PROTOCOL, &type, &length) == 0 &&
                     type == IPPROTO_TCP;
    if (!tcp) throw Refused{EPROTOTYPE, "not a TCP connection", &Counters::migrate_not_tcp};
    throw Refused{ENOTCONN, "not connected", &Counters::migrate_not_ours};
  }
  DepartureRecord record;
  record.flow.client = seen->from.address.raw();
  record.flow.vip = seen->to.address.raw();
  record.flow.client_port = htons(seen->from.port);
  record.flow.family = seen->to.address.is_ipv4() ? abi::FAMILY_IPV4 : abi::FAMILY_IPV6;
  record.own_port = seen->to.port;
  const auto socket = diag_.find(seen->to, seen->from);
  record.cookie = cookie_of(connection);
  if (has(record.flow))
    throw Refused{EALREADY, "the connection is being moved already", &Counters::migrate_busy};
  const auto tombstone = world_.tombstones.find(record.flow);
  const LiveFlow* live = world_.flows.find(record.flow);
  if (!socket || socket->cookie != record.cookie || !tombstone || live == nullptr ||
      tombstone->target_port != record.own_port)
    throw Refused{ENOTCONN, "not a connection that was opened by this node's agent",
                  &Counters::migrate_not_ours};
  if (tombstone->state != abi::TOMB_CONFIRMED || live->generation != tombstone->generation ||
      delivering_(record.flow))
    throw Refused{EAGAIN, "its request is still being delivered", &Counters::migrate_busy};
  record.generation = tombstone->generation;
  return record;
}

const config::PoolServer* Departures::find_server(std::uint16_t node, std::uint16_t port) const {
  for (const config::Pool& pool : world_.config.pools)
    for (const config::PoolServer& server : pool.servers)
      if (server.node_id == node && server.port == port) return &server;
  return nullptr;
}

/// In a pool of the connection's service.
const config::PoolServer& Departures::find_target(const DepartureRecord& record,
                                                  const std::string& name) const {
  const auto refuse = [](int error, const std::string& reason) {
    return Refused{error, reason, &Counters::migrate_no_target};
  };
  if (name == world_.self.name) throw refuse(EADDRNOTAVAIL, name + " is this node itself");
  if (world_.config.find_node(name) == nullptr)
    throw refuse(EADDRNOTAVAIL, "there is no node " + name);
  const config::Service* service = world_.config.find_service(service_of(record.flow));
  bool found = false;
  for (const config::Route& route : service->routes)
    for (const config::PoolServer& server : world_.config.find_pool(route.pool)->servers) {
      if (server.node != name) continue;
      if (!server.handoff.empty()) return server;
      found = true;
    }
  if (found)
    throw refuse(EOPNOTSUPP, name + " has no `handoff` in the pools of service " + service->name);
  throw refuse(EADDRNOTAVAIL, name + " is no server of service " + service->name);
}

void Departures::migrate(sys::UniqueFd channel, const std::string& target, conn::Parcel parcel) {
  if (has_hung_up(channel.get())) return;  // it has given up
  sys::UniqueFd connection = std::move(parcel.descriptors[0]);
  try {
    Bytes blob;
    try {
      blob = conn::read_blob(parcel.descriptors[1].get(), kMaxBlob);
    } catch (const std::system_error& error) {
      throw Refused{error.code().value(), error.what(), &Counters::migrate_too_large};
    }
    DepartureRecord record = examine(connection.get());
    const config::PoolServer& server = find_target(record, target);
    std::size_t bytes = 0;
    for (const auto& [flow, departure] : departures_) bytes += departure->bytes();
    if (departures_.size() >= kMost || bytes + abi::WIRE_WHOLE_MAX > kMostBytes)
      throw Refused{EAGAIN, "too many connections are being moved", &Counters::migrate_busy};
    start(std::move(channel), record, server, std::move(connection), blob);
  } catch (const Refused& refused) {
    if (refused.counter != nullptr) ++(world_.counters.*refused.counter);
    send_verdict(channel.get(), refused.error, true, refused.reason);
  }
}

/// `channel` is taken only when it goes.
void Departures::start(sys::UniqueFd channel, DepartureRecord record,
                       const config::PoolServer& target, sys::UniqueFd connection,
                       const Bytes& blob) {
  const auto refuse = [&](const Refused& refused) {
    world_.records.remove(record.cookie);
    ++(world_.counters.*refused.counter);
    send_verdict(channel.get(), refused.error, true, refused.reason);
  };
  try {
    record.target = target.node_id;
    record.target_port = target.port;
    record.keep(conn::VoiceKept(connection.get()));
    world_.records.write(record);
    auto frozen = try_freeze(std::move(connection), {}, freezer().kit, Scope::kWhole);
    if (!frozen)
      return refuse({frozen.error().error, frozen.error().reason, &Counters::migrate_not_frozen});
    Bytes payload = control::encode_whole(frozen->snapshot(), blob);
    if (payload.size() > abi::WIRE_WHOLE_MAX) {
      frozen->thaw({}, {});
      return refuse({EMSGSIZE, "what waits in its queues is more than a transfer carries (8 MB)",
                     &Counters::migrate_too_large});
    }
    const std::uint64_t cookie = record.cookie;
    auto departure = std::make_unique<Departure>(world_, record, std::move(channel), target,
                                                 std::move(*frozen), std::move(payload));
    freezer().by_cookie[cookie] = departure.get();
    enter(std::move(departure));
  } catch (const std::exception& error) {
    spdlog::error("give a connection away: {}", error.what());
    refuse({EIO, error.what(), &Counters::migrate_not_frozen});
  }
}

void Departures::enter(std::unique_ptr<Departure> departure) {
  const abi::flow_key flow = departure->record().flow;
  Departure& entered = *departures_.insert_or_assign(flow, std::move(departure)).first->second;
  entered.start(Clock::now());
}

/// The program comes to the next run of an agent that was ended in the middle.
void Departures::recover(sys::UniqueFd channel, sys::UniqueFd connection) {
  const auto seen = look_at(connection.get());
  if (!seen) return send_verdict(channel.get(), ECONNABORTED, true, "the connection has ended");
  const std::uint64_t cookie = cookie_of(connection.get());
  const bool frozen = conn::is_in_repair(connection.get());
  const auto orphan = std::ranges::find_if(
      orphans_, [&](const Orphan& known) { return known.record.cookie == cookie; });
  if (orphan == orphans_.end()) {
    if (!frozen) conn::open_lock(connection.get());
    return send_verdict(channel.get(), frozen ? 0 : ECONNABORTED, !frozen,
                        frozen ? "" : "the agent was ended before it had begun");
  }
  const DepartureRecord record = orphan->record;
  orphans_.erase(orphan);
  ++world_.counters.migrate_recovered;
  using Stage = DepartureRecord::Stage;
  const config::PoolServer* target = find_server(record.target, record.target_port);
  if (record.stage == Stage::kMoved ||
      (frozen && target == nullptr && record.stage != Stage::kFreezing)) {
    world_.records.remove(cookie);
    return send_verdict(channel.get(), record.stage == Stage::kMoved ? 0 : ENOTRECOVERABLE, false,
                        "the target is no server any more");
  }
  if (!frozen || record.stage == Stage::kFreezing) {
    if (frozen) {
      record.voice().put_back(connection.get());
      conn::leave_repair(connection.get(), false);
    }
    conn::open_lock(connection.get());
    conn::send_what_waits(connection.get());
    world_.records.remove(cookie);
    return send_verdict(channel.get(), ECONNABORTED, true, "the agent was ended in the middle");
  }
  enter(std::make_unique<Departure>(world_, record, std::move(channel), *target,
                                    std::move(connection)));
}

}  // namespace tcpmig::agent
