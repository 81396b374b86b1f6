// SPDX-License-Identifier: MIT
// Departures: what programs ask, up to the freeze.
#include <spdlog/spdlog.h>
#include <sys/socket.h>

#include <algorithm>
#include <stdexcept>
#include <tcpmig/migrate.hpp>

#include "agent/closing.hpp"
#include "agent/departures.hpp"
#include "agent/freezer.hpp"
#include "agent/guarded.hpp"
#include "agent/tickets.hpp"
#include "conn/queues.hpp"
#include "conn/repair_mode.hpp"
#include "conn/socket_lock.hpp"
#include "conn/socket_option.hpp"
#include "control/whole.hpp"
#include "handover/handover.h"

namespace tcpmig::agent {

struct Departures::Refused : std::runtime_error {
  Refused(int code, const std::string& reason, std::uint64_t Counters::* which)
      : std::runtime_error(reason), error(code), counter(which) {}
  int error;
  std::uint64_t Counters::* counter;
};

void Departures::take(sys::UniqueFd& channel, conn::Parcel& parcel) {
  const char verb = conn::verb_of(parcel);
  if (verb == HANDOVER_MIGRATE && parcel.descriptors.size() == 2) migrate(channel, parcel);
  if (verb == HANDOVER_RECOVER && parcel.descriptors.size() == 1)
    recover(channel, parcel.descriptors[0]);
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
  record.flow = flow_of(seen->to, seen->from);
  record.own_port = seen->to.port;
  const auto socket = diag_.find(seen->to, seen->from);
  record.cookie = conn::socket_cookie(connection);
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
  if (service == nullptr)
    throw refuse(EADDRNOTAVAIL, "its service is in the configuration no more");
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

/// A stranger's blob is read last: it may be large.
void Departures::migrate(sys::UniqueFd& channel, conn::Parcel& parcel) {
  if (has_hung_up(channel.get())) return;  // it has given up
  const auto* text = reinterpret_cast<const char*>(parcel.bytes.data());
  const std::string target(text + sizeof(handover_message), text + parcel.bytes.size());
  try {
    const DepartureRecord record = examine(parcel.descriptors[0].get());
    const config::PoolServer& server = find_target(record, target);
    require_room();
    const Bytes blob = blob_of(parcel.descriptors[1].get());
    start(channel, record, server, parcel.descriptors[0], blob);
  } catch (const Refused& refused) {
    ++(world_.counters.*refused.counter);
    send_verdict(channel.get(), refused.error, true, refused.what());
  }
}

Bytes Departures::blob_of(int fd) {
  try {
    return conn::read_blob(fd, kMaxBlob);
  } catch (const std::system_error& error) {
    const int code = error.code().value();
    throw Refused{code, error.what(),
                  code == EMSGSIZE ? &Counters::migrate_too_large : &Counters::migrate_bad_blob};
  }
}

/// For one more, as large as it may be: what is frozen, and what is sent of it.
void Departures::require_room() const {
  std::size_t bytes = 2 * std::size_t{abi::WIRE_WHOLE_MAX};
  for (const auto& [flow, departure] : departures_) bytes += departure->bytes();
  if (departures_.size() >= kMost || bytes > kMostBytes)
    throw Refused{EAGAIN, "too many connections are being moved", &Counters::migrate_busy};
}

Frozen Departures::freeze_whole(sys::UniqueFd& connection) {
  auto frozen = try_freeze(std::move(connection), {}, freezer().kit, Scope::kWhole);
  if (frozen) return std::move(*frozen);
  connection = std::move(frozen.error().fd);
  throw Refused{frozen.error().error, frozen.error().reason, &Counters::migrate_not_frozen};
}

/// `channel` and `connection` are taken only when it goes.
void Departures::start(sys::UniqueFd& channel, DepartureRecord record,
                       const config::PoolServer& target, sys::UniqueFd& connection,
                       const Bytes& blob) {
  std::optional<Frozen> frozen;
  std::unique_ptr<Departure> departure;
  const auto undo = [&] {
    if (frozen && frozen->fd() >= 0) connection = frozen->thaw({}, {});
    world_.records.remove(record.cookie);
  };
  try {
    record.target = target.node_id;
    record.target_port = target.port;
    record.keep(conn::VoiceKept(connection.get()));
    world_.records.write(record);
    frozen = freeze_whole(connection);
    // A program that does not hear from us hangs up first, and looks then whether its connection is frozen: one of the two sees the other.
    if (has_hung_up(channel.get()))
      throw Refused{ECANCELED, "its program has given up", &Counters::migrate_not_frozen};
    Bytes payload = control::encode_whole(frozen->snapshot(), blob);
    if (payload.size() > abi::WIRE_WHOLE_MAX)
      throw Refused{EMSGSIZE, "what waits in its queues is more than a transfer carries (8 MB)",
                    &Counters::migrate_too_large};
    departure = std::make_unique<Departure>(world_, record, std::move(channel), target,
                                            std::move(*frozen), std::move(payload));
  } catch (const Refused&) {
    undo();
    throw;
  } catch (const std::exception& error) {
    spdlog::error("give a connection away: {}", error.what());
    undo();
    throw Refused{EIO, error.what(), &Counters::migrate_not_frozen};
  }
  enter(std::move(departure));
}

/// What throws afterwards leaves it where it has deadlines.
void Departures::enter(std::unique_ptr<Departure> departure) {
  const DepartureRecord record = departure->record();
  freezer().by_cookie[record.cookie] = departure.get();
  Departure& entered =
      *departures_.insert_or_assign(record.flow, std::move(departure)).first->second;
  guarded("give a connection away", [&] {
    if (record.stage == DepartureRecord::Stage::kMoved)
      entered.start_moved();
    else
      entered.start(Clock::now());
  });
  settle(record.flow);
}

/// The program comes to the next run of an agent that was ended in the middle.
void Departures::recover(sys::UniqueFd& channel, sys::UniqueFd& connection) {
  const auto seen = look_at(connection.get());
  if (!seen) return send_verdict(channel.get(), ECONNABORTED, true, "the connection has ended");
  const std::uint64_t cookie = conn::socket_cookie(connection.get());
  for (const auto& [flow, departure] : departures_)
    if (departure->record().cookie == cookie) {
      if (!departure->adopt(channel))
        send_verdict(channel.get(), EALREADY, true, "the connection is being moved already");
      return;
    }
  const auto orphan = std::ranges::find_if(
      orphans_, [&](const Orphan& known) { return known.record.cookie == cookie; });
  if (orphan == orphans_.end()) return recover_unknown(channel, connection, *seen);
  const DepartureRecord record = orphan->record;
  orphans_.erase(orphan);
  ++world_.counters.migrate_recovered;
  recover_known(channel, connection, record);
}

/// Where nothing was written down the agent had not begun; what is frozen all the same can be nobody's any more.
void Departures::recover_unknown(sys::UniqueFd& channel, sys::UniqueFd& connection,
                                 const Accepted& seen) {
  if (!conn::is_in_repair(connection.get())) {
    conn::open_lock(connection.get());
    return send_verdict(channel.get(), ECONNABORTED, true,
                        "the agent was ended before it had begun");
  }
  DepartureRecord record;
  record.flow = flow_of(seen.to, seen.from);
  record.own_port = seen.to.port;
  record.cookie = conn::socket_cookie(connection.get());
  const auto tombstone = world_.tombstones.find(record.flow);
  if (tombstone && tombstone->state == abi::TOMB_CONFIRMED) {  // not one that is being offered
    record.generation = tombstone->generation;
    record.snd_nxt = conn::dump_queue_end(connection.get(), conn::Queue::kSend).value;
    end(record, Clock::now());
  }
  send_verdict(channel.get(), ENOTRECOVERABLE, false, "no agent knows what became of it");
}

void Departures::recover_known(sys::UniqueFd& channel, sys::UniqueFd& connection,
                               const DepartureRecord& record) {
  using Stage = DepartureRecord::Stage;
  const bool frozen = conn::is_in_repair(connection.get());
  const config::PoolServer* target = find_server(record.target, record.target_port);
  if (!frozen || record.stage == Stage::kFreezing) {
    if (frozen) {
      record.voice().put_back(connection.get());
      conn::leave_repair(connection.get(), false);
    }
    conn::open_lock(connection.get());
    conn::send_what_waits(connection.get());
    world_.records.remove(record.cookie);
    return send_verdict(channel.get(), ECONNABORTED, true, "the agent was ended in the middle");
  }
  if (target != nullptr)
    return enter(std::make_unique<Departure>(world_, record, std::move(channel), *target,
                                             std::move(connection)));
  if (record.stage == Stage::kMoved) {
    world_.records.remove(record.cookie);
    return send_verdict(channel.get(), 0, false, {});
  }
  end(record, Clock::now());
  send_verdict(channel.get(), ENOTRECOVERABLE, false, "the target is no server any more");
}

}  // namespace tcpmig::agent
