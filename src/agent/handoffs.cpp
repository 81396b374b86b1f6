// SPDX-License-Identifier: MIT
#include "agent/handoffs.hpp"

#include <arpa/inet.h>
#include <endian.h>
#include <spdlog/spdlog.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <nlohmann/json.hpp>
#include <stdexcept>

#include "agent/claim_socket.hpp"
#include "agent/guarded.hpp"
#include "agent/likeness.hpp"
#include "conn/repair_steps.hpp"
#include "conn/segment.hpp"
#include "conn/socket_option.hpp"
#include "control/whole.hpp"
#include "handover/handover.h"
#include "sys/check.hpp"

namespace tcpmig::agent {
namespace {

constexpr std::chrono::milliseconds kAskerPatience{1'000};
constexpr std::chrono::milliseconds kAcceptPause{100};

Refusal as_refusal(const std::system_error& error, abi::wire_reason reason) {
  return {reason, static_cast<std::uint32_t>(error.code().value())};
}

/// What connect() says where nobody listens, and where too many wait.
Refusal unreachable(const std::system_error& error) {
  return as_refusal(
      error, error.code().value() == EAGAIN ? abi::REASON_BACKLOG_FULL : abi::REASON_NO_LISTENER);
}

bool is_claim(const conn::Parcel& parcel) {
  handover_message message{};
  if (parcel.bytes.size() != sizeof message || parcel.descriptors.size() != 1) return false;
  std::memcpy(&message, parcel.bytes.data(), sizeof message);
  return std::memcmp(message.magic, HANDOVER_MAGIC, sizeof message.magic) == 0 &&
         message.version == HANDOVER_VERSION && message.verb == HANDOVER_CLAIM;
}

std::uint16_t port_of(const Arrival& arrival) { return ntohs(arrival.commit.target_port); }

sys::Endpoint local_end(const Arrival& arrival) { return local_of(arrival.flow, port_of(arrival)); }

}  // namespace

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
  if (waiting_.size() >= kMost) return Refusal{abi::REASON_BACKLOG_FULL, ENOBUFS};
  const abi::flow_key flow = arrival.flow;
  const auto entry = waiting_.try_emplace(flow).first;
  Waiting& waiting = entry->second;
  waiting = {.opened = opened,
             .arrival = std::move(arrival),
             .ticket = {},
             .channel = {},
             .connection = {},
             .blob = {},
             .snapshot = {},
             .deadline = opened.when + config_.timeouts.transfer / 2};
  const auto path = paths_.find(port_of(waiting.arrival));
  std::optional<Refusal> refusal =
      path == paths_.end() ? knock(waiting) : hand_to_socket(waiting, path->second);
  if (!refusal) {
    const int fd = waiting.ticket ? waiting.ticket->fd.get() : waiting.channel.get();
    flows_[fd] = flow;
    watch(fd, waiting.ticket && !waiting.ticket->knocked ? EPOLLIN | EPOLLOUT : EPOLLIN);
    return std::nullopt;
  }
  waiting_.erase(entry);
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
    return std::move(whole->snapshot);
  }
  auto snapshot = control::to_snapshot(arrival.commit, std::move(arrival.received), local);
  if (!snapshot) throw std::invalid_argument(snapshot.error());
  return std::move(*snapshot);
}

/// A second descriptor, the blob's, says that it is a whole connection: a program that expects none takes neither.
void Handoffs::offer_to_socket(const Waiting& waiting) const {
  const std::string note = client_of(waiting.arrival.flow).str();
  if (!waiting.arrival.is_whole())
    return send_descriptor(waiting.channel.get(), waiting.connection.get(), note);
  const sys::UniqueFd blob = conn::make_blob(waiting.blob);
  const auto length = static_cast<std::uint32_t>(note.size());
  const auto head = std::as_bytes(std::span(&length, 1));
  Bytes frame(head.begin(), head.end());
  const auto text = std::as_bytes(std::span(note));
  frame.insert(frame.end(), text.begin(), text.end());
  const int descriptors[]{waiting.connection.get(), blob.get()};
  conn::send_parcel(waiting.channel.get(), frame, descriptors);
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

// ---- programs that ask ----

void Handoffs::on_events() {
  std::array<epoll_event, 64> events{};
  const int count = ::epoll_wait(epoll_.get(), events.data(), events.size(), 0);
  for (int i = 0; i < count; ++i) {
    const int fd = events[static_cast<std::size_t>(i)].data.fd;
    guarded("handover", [&] {
      if (fd == listener_.get()) return accept_askers();
      if (askers_.contains(fd)) return hear_asker(fd);
      const auto flow = flows_.find(fd);
      if (flow == flows_.end()) return;  // ended by an event before this one
      const auto entry = waiting_.find(flow->second);
      if (entry->second.ticket)
        hear_ticket(entry);
      else
        hear_program(entry);
    });
  }
}

void Handoffs::accept_askers() {
  while (askers_.size() < kMostAskers && aside_.is_free()) {
    sys::UniqueFd fd(::accept4(listener_.get(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
    if (!fd && (errno == EAGAIN || errno == ECONNABORTED || errno == EINTR)) return;
    if (!fd) break;  // no descriptor left
    const uid_t user =
        conn::get_option<ucred>(fd.get(), SOL_SOCKET, SO_PEERCRED, "SO_PEERCRED").uid;
    if (askers_of_[user] >= kMostOfOneUser) {
      ++counters_.askers_dropped;
      aside_.close(std::move(fd));
      continue;
    }
    const int number = fd.get();
    ++askers_of_[user];
    askers_[number] = {std::move(fd), Clock::now() + kAskerPatience, user};
    watch(number, EPOLLIN);
  }
  watch(listener_.get(), 0);
  next_accept_ = Clock::now() + kAcceptPause;
}

void Handoffs::hear_asker(int fd) {
  std::optional<conn::Parcel> parcel;
  try {
    parcel = conn::receive_parcel(fd);
  } catch (const std::system_error& error) {
    if (error.code().value() == EAGAIN) return;
  }
  sys::UniqueFd channel = forget_asker(fd);
  if (parcel && is_claim(*parcel))
    return claim(std::move(channel), std::move(parcel->descriptors[0]));
  if (parcel && others_ && others_(channel, *parcel)) return;
  if (parcel)
    for (sys::UniqueFd& descriptor : parcel->descriptors) aside_.close(std::move(descriptor));
  aside_.close(std::move(channel));
}

sys::UniqueFd Handoffs::forget_asker(int fd) {
  Asker asker = std::move(askers_.extract(fd).mapped());
  if (const auto user = askers_of_.find(asker.user); --user->second == 0) askers_of_.erase(user);
  return std::move(asker.channel);
}

void Handoffs::claim(sys::UniqueFd channel, sys::UniqueFd accepted) {
  const auto seen = look_at(accepted.get());
  if (!seen || doors_.answered(seen->from, seen->to, accepted.get())) {
    handover_send(channel.get(), HANDOVER_NOTHING, -1);
    aside_.close(std::move(accepted));
    return;
  }
  for (auto entry = waiting_.begin(); entry != waiting_.end(); ++entry) {
    const auto& ticket = entry->second.ticket;
    if (!ticket || ticket->from != seen->from || ticket->to != seen->to) continue;
    if (!in_same_namespace(ticket->fd.get(), accepted.get())) break;
    return offer(entry, std::move(channel), *seen, std::move(accepted));
  }
  ++counters_.strangers;
  handover_send(channel.get(), HANDOVER_STRANGER, -1);
  aside_.close(std::move(accepted));
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
    waiting_.erase(entry);
    return;
  }
  Refusal refusal{abi::REASON_NOT_TAKEN};
  try {
    restore(waiting, ticket, accepted.get());
    const int sent = handover_send(channel.get(), HANDOVER_OFFER, waiting.connection.get());
    if (sent == 0) {
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
  end(entry, refusal);
}

bool Handoffs::still_ours(const Waiting& waiting) const {
  const auto tombstone = tombstones_.find(waiting.arrival.flow);
  return tombstone && tombstone->state == abi::TOMB_OPENING &&
         tombstone->generation == ntohl(waiting.arrival.commit.generation);
}

// ---- what becomes of them ----

/// It connects late (a full backlog), or the program has closed it.
void Handoffs::hear_ticket(Entry entry) {
  Ticket& ticket = *entry->second.ticket;
  try {
    if (!ticket.knocked) {
      if (ticket.advance()) watch(ticket.fd.get(), EPOLLIN);
      return;
    }
  } catch (const std::system_error& error) {
    return end(entry, unreachable(error));
  }
  char ignored[512];
  const ssize_t got = ::recv(ticket.fd.get(), ignored, sizeof ignored, MSG_DONTWAIT);
  if (got > 0 || (got < 0 && errno == EAGAIN)) return;  // a program that greets whoever comes
  if (got == 0) doors_.found_deaf(port_of(entry->second.arrival), Clock::now());  // else: it ended
  ++counters_.tickets_untaken;
  end(entry, {abi::REASON_NOT_TAKEN});
}

bool Handoffs::hear_program(Entry entry) {
  const int verb = handover_receive(entry->second.channel.get(), nullptr);
  if (verb == -EAGAIN) return false;
  if (verb == HANDOVER_TAKEN)
    give(entry);
  else
    end(entry, {abi::REASON_NOT_TAKEN});
  return true;
}

const ResumeKit& Handoffs::kit() {
  if (!kit_) kit_ = std::make_unique<ResumeKit>();
  return *kit_;
}

void Handoffs::go_live(const Waiting& waiting) {
  const int fd = waiting.connection.get();
  const sys::Endpoint local = local_end(waiting.arrival);
  offered_.take_off(fd);
  if (waiting.arrival.is_whole())
    conn::restore_voice(fd, waiting.snapshot, local, deliver_, &kit());
  conn::finish_resume(fd, waiting.snapshot, local, deliver_);
}

/// The point of no return.
void Handoffs::give(Entry entry) {
  Waiting waiting = std::move(entry->second);
  flows_.erase(waiting.channel.get());
  waiting_.erase(entry);
  try {
    go_live(waiting);
  } catch (const std::exception& error) {
    spdlog::warn("{}: {}", client_of(waiting.arrival.flow).str(), error.what());
    offered_.forget(waiting.connection.get());
    ++counters_.not_taken;
    return refused_(waiting.opened, {abi::REASON_KERNEL_REFUSED, 0});
  }
  handover_send(waiting.channel.get(), HANDOVER_GO, -1);  // where it fails the program looks itself
  ++counters_.handed_over;
  if (waiting.arrival.is_whole()) ++counters_.whole_taken;
  waiting.opened.stamps.opened_ns = htobe64(nanoseconds(Clock::now()));
  taken_(waiting.opened);
  replay(waiting);
}

/// What the client has sent while the connection was offered.
void Handoffs::replay(const Waiting& waiting) {
  const sys::Endpoint client = client_of(waiting.arrival.flow), local = local_end(waiting.arrival);
  for (const CapturedSegment& captured : offered_.take(waiting.connection.get())) {
    if (!conn::is_intact(client, local, captured.bytes)) {
      ++counters_.captures_dropped;
      continue;
    }
    conn::give_packets(client, local, captured.bytes, deliver_);
    ++counters_.replayed;
  }
}

/// What is closed is in repair: nobody hears of it.
void Handoffs::end(Entry entry, Refusal refusal) {
  const Opened opened = entry->second.opened;
  drop(entry);
  ++counters_.not_taken;
  refused_(opened, refusal);
}

void Handoffs::time_out(Entry entry, TimePoint now) {
  Waiting& waiting = entry->second;
  if (!waiting.ticket) {
    if (!hear_program(entry)) end(entry, {abi::REASON_NOT_TAKEN, ETIMEDOUT});
    return;
  }
  ++counters_.tickets_untaken;
  const Ticket& ticket = *waiting.ticket;
  const auto other_end = diag_.find(ticket.to, ticket.from);
  if (other_end && other_end->inode != 0) {
    doors_.found_deaf(ticket.to.port, now);
    return end(entry, {abi::REASON_NOT_TAKEN});
  }
  const bool full = !ticket.knocked && backlog_full(diag_, ticket.to);
  end(entry, {full ? abi::REASON_BACKLOG_FULL : abi::REASON_NOT_TAKEN, ETIMEDOUT});
}

bool Handoffs::ask(const abi::flow_key& flow, const abi::wire_header& question,
                   const sys::Endpoint& from) {
  const auto entry = waiting_.find(flow);
  if (entry == waiting_.end() || entry->second.opened.question.generation != question.generation)
    return false;
  Opened& opened = entry->second.opened;
  const auto port = opened.question.target_port;
  opened.question = question;
  opened.question.target_port = port;
  opened.from = from;
  const bool abort = question.type == abi::WIRE_ABORT;
  if (abort && (entry->second.ticket || !hear_program(entry))) end(entry, {abi::REASON_ABORTED});
  return true;
}

void Handoffs::forget(const abi::flow_key& flow) {
  const auto entry = waiting_.find(flow);
  if (entry != waiting_.end()) drop(entry);
}

void Handoffs::drop(Entry entry) {
  if (entry->second.ticket) flows_.erase(entry->second.ticket->fd.get());
  if (entry->second.channel) flows_.erase(entry->second.channel.get());
  if (entry->second.connection) offered_.forget(entry->second.connection.get());
  waiting_.erase(entry);
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
  return {{"waiting", waiting_.size()}, {"deaf_ports", doors_.status()}};
}

}  // namespace tcpmig::agent
