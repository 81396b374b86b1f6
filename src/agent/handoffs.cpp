// SPDX-License-Identifier: MIT
#include "agent/handoffs.hpp"

#include <arpa/inet.h>
#include <spdlog/spdlog.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <stdexcept>

#include "agent/claim_socket.hpp"
#include "agent/closing.hpp"
#include "agent/guarded.hpp"
#include "agent/handoffs_steps.hpp"
#include "agent/likeness.hpp"
#include "conn/repair_steps.hpp"
#include "conn/rest.hpp"
#include "control/whole.hpp"
#include "handover/handover.h"
#include "sys/check.hpp"

namespace tcpmig::agent {
Handoffs::Handoffs(const config::Config& config, const config::Node& self,
                   const Tombstones& tombstones, sys::SockDiag& diag, Deliver deliver,
                   Counters& counters, Taken taken, Refused refused)
    : config_(config),
      self_(self),
      tombstones_(tombstones),
      diag_(diag),
      deliver_(std::move(deliver)),
      counters_(counters),
      taken_(std::move(taken)),
      refused_(std::move(refused)),
      offered_(config.limits.hold_packets, counters),
      doors_(config, self, counters),
      epoll_(sys::check("epoll_create1", ::epoll_create1(EPOLL_CLOEXEC))),
      listener_(listen_for_claims(config.paths(self.name).handover_socket())) {
  for (const config::Pool& pool : config.pools)
    for (const config::PoolServer& server : pool.servers)
      if (server.node_id == self.id && !server.handoff.empty())
        paths_[server.port] = server.handoff;
  watch(listener_.get(), EPOLLIN);
}

Handoffs::~Handoffs() {
  std::error_code ignored;
  std::filesystem::remove(config_.paths(self_.name).handover_socket(), ignored);
}

void Handoffs::watch(int fd, std::uint32_t events) {
  epoll_event event{};
  event.events = events;
  event.data.fd = fd;
  if (::epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, fd, &event) < 0 && errno == EEXIST)
    sys::check("epoll_ctl", ::epoll_ctl(epoll_.get(), EPOLL_CTL_MOD, fd, &event));
}

std::optional<Refusal> Handoffs::open(const Opened& opened, Arrival arrival) {
  const std::size_t bytes = arrival.received.size();
  if (waiting_.size() >= kMost || bytes_ + bytes > kMostBytes)
    return Refusal{abi::REASON_BACKLOG_FULL, ENOBUFS};
  const abi::flow_key flow = arrival.flow;
  const auto entry = waiting_.try_emplace(flow).first;
  Waiting& waiting = entry->second;
  waiting = {.opened = opened,
             .arrival = std::move(arrival),
             .ticket = {},
             .channel = {},
             .connection = {},
             .blob = {},
             .rest = {},
             .to_send = 0,
             .snapshot = {},
             .deadline = opened.when + config_.timeouts.transfer / 2,
             .bytes = bytes};
  bytes_ += bytes;
  const auto path = paths_.find(port_of(waiting.arrival));
  std::optional<Refusal> refusal =
      path == paths_.end() ? knock(waiting) : hand_to_socket(waiting, path->second);
  if (!refusal) {
    const int fd = waiting.ticket ? waiting.ticket->fd.get() : waiting.channel.get();
    flows_[fd] = flow;
    watch(fd, waiting.ticket && !waiting.ticket->knocked ? EPOLLIN | EPOLLOUT : EPOLLIN);
    return std::nullopt;
  }
  drop(entry);
  return refusal;
}

std::optional<Refusal> Handoffs::knock(Waiting& waiting) {
  const sys::Endpoint listener = local_end(waiting.arrival);
  if (!doors_.is_open(listener, Clock::now())) return Refusal{abi::REASON_NOT_TAKEN};
  try {
    waiting.ticket = issue_ticket(config_, self_, listener);
    ++counters_.tickets;
    return std::nullopt;
  } catch (const std::system_error& error) {
    return unreachable(error);
  }
}

Snapshot Handoffs::unpack(Waiting& waiting) const {
  Arrival& arrival = waiting.arrival;
  const sys::Endpoint local = local_end(arrival);
  if (arrival.is_whole()) {
    auto whole = control::decode_whole(arrival.commit, arrival.received, local);
    if (!whole) throw std::invalid_argument(whole.error());
    arrival.received = {};
    waiting.blob = std::move(whole->blob);
    waiting.to_send = whole->snapshot.sent.size() + whole->snapshot.unsent.size();
    if (const auto rest = conn::take_rest(whole->snapshot)) waiting.rest = conn::encode_rest(*rest);
    return std::move(whole->snapshot);
  }
  auto snapshot = control::to_snapshot(arrival.commit, std::move(arrival.received), local);
  if (!snapshot) throw std::invalid_argument(snapshot.error());
  return std::move(*snapshot);
}

/// A second descriptor, the blob's, says that it is a whole connection: a program that expects none takes neither. A third one holds what it shall
/// send first. Neither is kept.
void Handoffs::offer_to_socket(Waiting& waiting) {
  const std::string note = client_of(waiting.arrival.flow).str();
  if (!waiting.arrival.is_whole())
    return send_descriptor(waiting.channel.get(), waiting.connection.get(), note);
  const sys::UniqueFd blob = conn::make_blob(std::exchange(waiting.blob, {}));
  const Bytes rest = std::exchange(waiting.rest, {});
  const sys::UniqueFd first = rest.empty() ? sys::UniqueFd{} : conn::make_blob(rest);
  const int descriptors[]{waiting.connection.get(), blob.get(), first.get()};
  conn::send_parcel(waiting.channel.get(), conn::note_frame(note),
                    std::span(descriptors).first(rest.empty() ? 2 : 3));
}

/// In repair afterwards. `like`: an accepted socket whose settings it shall have; -1: none.
void Handoffs::restore(Waiting& waiting, const std::optional<Accepted>& likeness, int like) {
  const sys::Endpoint local = local_end(waiting.arrival);
  Snapshot snapshot = unpack(waiting);
  if (likeness) take_likeness(snapshot, *likeness, like);
  waiting.connection =
      waiting.arrival.is_whole()
          ? conn::begin_resume(snapshot, local)
          : conn::resume_in_repair(snapshot, local, deliver_, snapshot.ecn ? &kit() : nullptr);
  if (likeness) give_likeness(like, waiting.connection.get());
  offered_.put_on(waiting.connection.get());
  if (offered_.events_fd() >= 0) watch(offered_.events_fd(), EPOLLIN);
  snapshot.received.clear();
  waiting.snapshot = std::move(snapshot);
}

std::optional<Refusal> Handoffs::hand_to_socket(Waiting& waiting, const std::string& path) {
  try {
    waiting.channel = connect_to_program(path);
  } catch (const std::system_error& error) {
    return unreachable(error);
  }
  try {
    restore(waiting, std::nullopt, -1);
    offer_to_socket(waiting);
    return std::nullopt;
  } catch (const std::system_error& error) {
    return as_refusal(error, abi::REASON_KERNEL_REFUSED);
  } catch (const std::exception& error) {  // what this kernel cannot restore
    spdlog::warn("{}: {}", client_of(waiting.arrival.flow).str(), error.what());
    return Refusal{abi::REASON_KERNEL_REFUSED, ENOTSUP};
  }
}

/// The program has accepted the ticket: it gets the connection. The ticket ends, also where something goes wrong.
void Handoffs::offer(Entry entry, sys::UniqueFd channel, const Accepted& ticket,
                     sys::UniqueFd accepted) {
  Waiting& waiting = entry->second;
  doors_.found_open(port_of(waiting.arrival));
  flows_.erase(waiting.ticket->fd.get());
  const Ticket used = std::move(*waiting.ticket);
  waiting.ticket.reset();
  if (!still_ours(waiting)) {
    handover_send(channel.get(), HANDOVER_NOTHING, -1);
    drop(entry);
    close_channel(aside_, std::move(channel));
    close_connection(aside_, std::move(accepted));
    return;
  }
  Refusal refusal{abi::REASON_NOT_TAKEN};
  try {
    restore(waiting, ticket, accepted.get());
    const int sent = handover_send(channel.get(), HANDOVER_OFFER, waiting.connection.get());
    if (sent == 0) {
      close_connection(aside_, std::move(accepted));
      waiting.channel = std::move(channel);
      waiting.deadline = std::max(waiting.deadline, Clock::now() + config_.timeouts.transfer / 4);
      flows_[waiting.channel.get()] = entry->first;
      return;  // watched already, as an asker
    }
    refusal.detail = static_cast<std::uint32_t>(-sent);
  } catch (const std::system_error& error) {
    refusal = as_refusal(error, abi::REASON_KERNEL_REFUSED);
  } catch (const std::exception& error) {  // what this kernel cannot restore
    spdlog::warn("{}: {}", client_of(entry->first).str(), error.what());
    refusal = {abi::REASON_KERNEL_REFUSED, ENOTSUP};
  }
  handover_send(channel.get(), HANDOVER_NOTHING, -1);
  close_channel(aside_, std::move(channel));
  close_connection(aside_, std::move(accepted));
  end(entry, refusal);
}

bool Handoffs::still_ours(const Waiting& waiting) const {
  const auto tombstone = tombstones_.find(waiting.arrival.flow);
  return tombstone && tombstone->state == abi::TOMB_OPENING &&
         tombstone->generation == ntohl(waiting.arrival.commit.generation);
}

TimePoint Handoffs::due() const {
  TimePoint first =
      std::min(doors_.due(), next_accept_ == TimePoint{} ? TimePoint::max() : next_accept_);
  for (const auto& [flow, waiting] : waiting_) first = std::min(first, waiting.deadline);
  for (const auto& [fd, asker] : askers_) first = std::min(first, asker.deadline);
  return first;
}

void Handoffs::run(TimePoint now) {
  doors_.run(now);
  if (next_accept_ != TimePoint{} && now >= next_accept_) {
    next_accept_ = {};
    watch(listener_.get(), EPOLLIN);
  }
  aside_.run();
  std::vector<int> silent;
  for (const auto& [fd, asker] : askers_)
    if (now >= asker.deadline) silent.push_back(fd);
  for (const int fd : silent) aside_.close(forget_asker(fd));
  std::vector<abi::flow_key> late;
  for (const auto& [flow, waiting] : waiting_)
    if (now >= waiting.deadline) late.push_back(flow);
  for (const abi::flow_key& flow : late)
    guarded("a handover's end", [&] {
      const auto entry = waiting_.find(flow);
      if (entry != waiting_.end()) time_out(entry, now);
    });
}

nlohmann::json Handoffs::status() const {
  return {
      {"waiting", waiting_.size()}, {"locked", offered_.locked()}, {"deaf_ports", doors_.status()}};
}

}  // namespace tcpmig::agent
