// SPDX-License-Identifier: MIT
#include "agent/departures.hpp"

#include <arpa/inet.h>
#include <spdlog/spdlog.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "agent/freezer.hpp"
#include "agent/guarded.hpp"
#include "conn/segment.hpp"
#include "control/client_segments.hpp"
#include "handover/handover.h"
#include "sys/check.hpp"

namespace tcpmig::agent {
namespace {

using std::chrono::milliseconds;

constexpr milliseconds kOrphanPause{100};
constexpr milliseconds kOrphanPatience{60'000};  // for a program that does not ask
constexpr int kLeftFor = 4;                      // times timeouts.transfer
constexpr milliseconds kSweepPause{1'000};

}  // namespace

Departures::Departures(DepartureWorld world, sys::SockDiag& diag, Endings& endings,
                       Delivering delivering)
    : world_(std::move(world)),
      diag_(diag),
      endings_(endings),
      delivering_(std::move(delivering)),
      epoll_(sys::check("epoll_create1", ::epoll_create1(EPOLL_CLOEXEC))),
      grace_event_(sys::check("eventfd", ::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK))) {
  epoll_event event{};
  event.events = EPOLLIN;
  event.data.fd = grace_event_.get();
  sys::check("epoll_ctl", ::epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, grace_event_.get(), &event));
  const TimePoint now = Clock::now();
  for (const DepartureRecord& record : world_.records.read_all())
    orphans_.push_back({record, now, now + kOrphanPatience});
}

Departures::~Departures() {
  if (freezer_) freezer_->grace.stop();
}

Departures::Freezer& Departures::freezer() {
  if (freezer_) return *freezer_;
  freezer_ = std::make_unique<Freezer>();
  for (const std::string& warning : freezer_->kit.warnings()) spdlog::warn("{}", warning);
  if (freezer_->kit.has_lock()) {
    epoll_event event{};
    event.events = EPOLLIN;
    event.data.fd = freezer_->kit.captures_fd();
    sys::check("epoll_ctl", ::epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, event.data.fd, &event));
  }
  return *freezer_;
}

bool Departures::take_answer(const abi::flow_key& flow, const control::Incoming& message) {
  const auto found = departures_.find(flow);
  if (found == departures_.end()) return false;
  found->second->take_answer(message, Clock::now());
  settle(flow);
  return true;
}

/// What follows from a change of one of them.
void Departures::settle(const abi::flow_key& flow) {
  const auto found = departures_.find(flow);
  if (found == departures_.end()) return;
  Departure& departure = *found->second;
  remember(departure, Clock::now());
  if (departure.asks_for_grace()) {
    freezer().consume(world_.counters);
    freezer_->grace.after([this, flow, cookie = departure.record().cookie] {
      {
        const std::lock_guard lock(freezer_->mutex);
        freezer_->settled.emplace_back(flow, cookie);
      }
      ::eventfd_write(grace_event_.get(), 1);
    });
  }
  if (!departure.done()) return;
  if (freezer_) {
    freezer_->consume(world_.counters);
    freezer_->by_cookie.erase(departure.record().cookie);
  }
  departures_.erase(found);
}

/// For a while: where its packets go.
void Departures::remember(const Departure& departure, TimePoint now) {
  const DepartureRecord& record = departure.record();
  const TimePoint until = now + kLeftFor * world_.config.timeouts.transfer;
  if (departure.has_moved() && !left_.contains(record.flow) && left_.size() < kMostLeft) {
    left_[record.flow] = {departure.owner(), until};
    left_until_.emplace_back(until, record.flow);
  }
  if (departure.done() && !departure.has_moved() && returned_.size() < kMostLeft)
    returned_.insert_or_assign(record.flow, Returned{record, until});
}

bool Departures::take_handed_back(const abi::flow_key& flow, const control::Incoming& message) {
  const auto found = departures_.find(flow);
  if (found != departures_.end() &&
      found->second->take_handed_back(message.header, message.payload)) {
    ++world_.counters.got_back;
    return true;
  }
  const auto returned = returned_.find(flow);
  if (returned == returned_.end()) return false;
  const DepartureRecord& record = returned->second.record;
  const control::Generation generation = ntohl(message.header.generation);
  const LiveFlow* live = world_.flows.find(flow);
  if (ntohs(message.header.sender) != record.target || live == nullptr ||
      !control::newer(generation, record.generation) || control::newer(generation, record.offered))
    return false;
  ++world_.counters.got_back;
  conn::give_packets(client_of(flow), local_of(flow, record.own_port), message.payload,
                     world_.deliver);
  return true;
}

std::vector<Bytes> Departures::take_late(const abi::flow_key& flow) {
  auto late = late_.extract(flow);
  return late.empty() ? std::vector<Bytes>{} : std::move(late.mapped().segments);
}

bool Departures::is_frozen(const abi::flow_key& flow) const {
  return has(flow) || std::ranges::any_of(orphans_, [&](const Orphan& orphan) {
           return FlowEqual{}(orphan.record.flow, flow);
         });
}

void Departures::comes_back(const abi::flow_key& flow) {
  left_.erase(flow);
  returned_.erase(flow);
  const auto found = departures_.find(flow);
  if (found == departures_.end()) return;
  found->second->overtaken(Clock::now());
  if (auto late = found->second->take_late(); !late.empty() && late_.size() < kMostLeft)
    late_.insert_or_assign(
        flow, Late{std::move(late), Clock::now() + kLeftFor * world_.config.timeouts.transfer});
  settle(flow);
  left_.erase(flow);
}

bool Departures::send_on(const abi::flow_key& flow, std::span<const std::byte> segment,
                         bool crafted) {
  const auto found = left_.find(flow);
  if (found == left_.end()) return false;
  const control::Transfer& owner = found->second.owner;
  const config::Node* node = world_.config.find_node(owner.target);
  const bool ipv4 = owner.client.address.is_ipv4();
  for (const Bytes& piece : control::split_segment(segment, control::segment_room(owner.client)))
    world_.port.send(control::segment_message(owner, piece, crafted),
                     {ipv4 ? node->address4 : node->address6, world_.config.control_port});
  ++world_.counters.sent_on;
  return true;
}

void Departures::on_events() {
  eventfd_t ignored = 0;
  ::eventfd_read(grace_event_.get(), &ignored);
  if (!freezer_) return;
  freezer_->consume(world_.counters);
  std::vector<std::pair<abi::flow_key, std::uint64_t>> settled;
  {
    const std::lock_guard lock(freezer_->mutex);
    settled.swap(freezer_->settled);
  }
  for (const auto& [flow, cookie] : settled) {
    const auto found = departures_.find(flow);
    if (found == departures_.end() || found->second->record().cookie != cookie ||
        !found->second->waits_for_grace())
      continue;
    guarded("what came late", [&] { found->second->grace_over(Clock::now()); });
    settle(flow);
  }
}

/// A program that was giving this connection away when the agent was killed. It asks (recover()), or has ended: then its client must
/// hear of it, for a frozen socket ends without a packet.
void Departures::look_after(Orphan& orphan, TimePoint now) {
  orphan.next = now + kOrphanPause;
  const DepartureRecord& record = orphan.record;
  const sys::Endpoint local = local_of(record.flow, record.own_port);
  const auto socket = diag_.find(local, client_of(record.flow));
  const bool ours = socket && socket->cookie == record.cookie;
  if (ours && now < orphan.deadline) return;
  orphan.deadline = {};
  end(record, now);
}

/// Nobody will go on with it. The switch lets that through only where it has not moved.
void Departures::end(const DepartureRecord& record, TimePoint now) {
  const sys::Endpoint local = local_of(record.flow, record.own_port);
  const auto socket = diag_.find(local, client_of(record.flow));
  const bool ours = socket && socket->cookie == record.cookie;
  world_.records.remove(record.cookie);
  if (ours) diag_.destroy(*socket);
  if (!socket || ours) endings_.tell(record.flow, local, record.generation, record.snd_nxt, now);
}

void Departures::sweep(TimePoint now) {
  for (; !left_until_.empty() && now >= left_until_.front().first; left_until_.pop_front()) {
    const auto left = left_.find(left_until_.front().second);  // it may have left once more since
    if (left != left_.end() && now >= left->second.until) left_.erase(left);
  }
  if (now >= next_sweep_) {
    const auto is_over = [&](const auto& entry) { return now >= entry.second.until; };
    std::erase_if(late_, is_over);
    std::erase_if(returned_, is_over);
    next_sweep_ = now + kSweepPause;
  }
  for (Orphan& orphan : orphans_)
    if (now >= orphan.next)
      guarded("look after a frozen connection", [&] { look_after(orphan, now); });
  std::erase_if(orphans_, [](const Orphan& orphan) { return orphan.deadline == TimePoint{}; });
}

TimePoint Departures::due() const {
  TimePoint first = TimePoint::max();
  if (!departures_.empty()) first = next_sign_;
  for (const auto& [flow, departure] : departures_) first = std::min(first, departure->due());
  for (const Orphan& orphan : orphans_) first = std::min(first, orphan.next);
  if (!left_until_.empty()) first = std::min(first, left_until_.front().first);
  if (!late_.empty() || !returned_.empty()) first = std::min(first, next_sweep_);
  return first;
}

void Departures::run(TimePoint now) {
  std::vector<abi::flow_key> due;
  for (const auto& [flow, departure] : departures_)
    if (departure->due() <= now) due.push_back(flow);
  world_.under_way = std::max<std::size_t>(1, departures_.size());
  for (const abi::flow_key& flow : due) {
    guarded("give a connection away", [&] { departures_.at(flow)->run(now); });
    settle(flow);
  }
  if (now >= next_sign_) {
    for (const auto& [flow, departure] : departures_) departure->show_life();
    next_sign_ = now + milliseconds(HANDOVER_SIGN_MS);
  }
  sweep(now);
}

nlohmann::json Departures::status() const {
  return {{"under_way", departures_.size()}, {"to_recover", orphans_.size()}};
}

}  // namespace tcpmig::agent
