// SPDX-License-Identifier: MIT
#include "agent/service.hpp"

#include <arpa/inet.h>
#include <spdlog/spdlog.h>
#include <unistd.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "agent/findings.hpp"
#include "agent/guarded.hpp"
#include "agent/segments.hpp"
#include "sys/errors.hpp"

namespace tcpmig::agent {
namespace {

using std::chrono::milliseconds;

constexpr const char* kTunName = "tcpmig0";
constexpr milliseconds kTick{5};
constexpr milliseconds kLoadPause = control::Heartbeat::kPause;
constexpr milliseconds kCarePause{1'000};
constexpr int kPacketBatch = 64;
constexpr std::size_t kPacketMax = 65'536;

control::NodeNetwork set_up_network(const config::Config& config, const config::Node& self,
                                    sys::Ledger& ledger, sys::Netlink& netlink) {
  ledger.begin_adoption();
  control::NodeNetwork network(config, self, ledger, netlink);
  ledger.finish_adoption();
  return network;
}

int index_of(sys::Netlink& netlink, const std::string& name) {
  const auto link = netlink.find_link(name);
  if (!link)
    throw sys::WrongSetup("there is no interface " + name +
                          ": correct `interface` of this [[node]]");
  return link->index;
}

}  // namespace

Service::Service(const config::Config& config, const config::Node& self)
    : config_(config),
      self_(self),
      secret_(control::Secret::load(config.secret_file)),
      port_(config, self, secret_, counters_),
      opener_(secret_, config, self.id),
      pins_(config.paths(self.name).pins("agent")),
      ledger_(config.paths(self.name).ledger("agent"), netlink_),
      network_(set_up_network(config, self, ledger_, netlink_)),
      heartbeat_(network_),
      programs_(config, self, pins_),
      tun_(kTunName),
      tombstones_(programs_.tombstones()),
      answers_(port_, config, self, network_, counters_),
      held_({config.limits.hold_packets, config.limits.hold_bytes, config.timeouts.hold}),
      hand_backs_(answers_, counters_, config.timeouts.transfer),
      orphans_(2 * config.timeouts.transfer + config.timeouts.hold),
      assembly_(config.timeouts.transfer),
      confirmations_(
          diag_, tombstones_, counters_, config.timeouts.transfer / 2,
          [this](const Opened& opened) { child_found(opened); },
          [this](const Opened& opened, bool backlog_full) { child_absent(opened, backlog_full); }),
      endings_(tun_, diag_, tombstones_, counters_),
      openings_(tun_, diag_, tombstones_, endings_, programs_.pending_map(),
                config.timeouts.delivery, counters_,
                [this](const abi::flow_key& flow) { delivered(flow); }),
      handoffs_(
          config, self, tombstones_, diag_,
          [this](std::span<const std::byte> packet) { openings_.inject(packet); }, counters_,
          [this](const Opened& opened) { confirm(opened); },
          [this](const Opened& opened, Refusal refusal) { refuse(opened, refusal); }),
      flows_(
          config, diag_, tombstones_, endings_, answers_, counters_,
          [this](const abi::flow_key& flow) { return openings_.has(flow); },
          [this](const abi::flow_key& flow) { return departures_.is_frozen(flow); },
          [this](std::uint64_t cookie) { return handoffs_.was_withdrawn(cookie); }, Clock::now()),
      departures_(departure_world(), diag_, endings_,
                  [this](const abi::flow_key& flow) { return openings_.has(flow); }),
      interface_(index_of(netlink_, self.interface)),
      next_tick_(Clock::now()),
      next_load_(next_tick_),
      next_care_(next_tick_ + kCarePause) {
  if (!programs_.has_kernel_resume() && self.resume != config::Resume::kRepair)
    warnings_.push_back(without_kernel_resume());
  for (const Finding& finding : host_findings(config, self))
    if (!finding.ok)
      warnings_.push_back(finding.name + ": " + finding.detail + ": " + finding.cost + ": " +
                          finding.fix);
  for (const std::string& warning : warnings_) spdlog::warn("{}", warning);
  connect_parts();
  programs_.configure(secret_, tun_.ifindex());
  watch_syncookies();
  attached_ = programs_.attach(interface_, tun_.ifindex());
}

void Service::connect_parts() {
  handoffs_.others(
      [this](sys::UniqueFd& channel, conn::Parcel& parcel) { departures_.take(channel, parcel); });
  handoffs_.half_alive([this](const Opened& opened, const sys::Endpoint& local, Seq snd_nxt) {
    endings_.tell_later(opened.flow, local, ntohl(opened.question.generation), snd_nxt.value,
                        Clock::now() + 2 * config_.timeouts.transfer);  // taken back by then
  });
  handoffs_.give_back(
      [this](const Opened& opened, std::uint16_t port, std::span<const std::byte> segment) {
        return hand_backs_.give(opened.flow, port, segment, Clock::now());
      });
}

DepartureWorld Service::departure_world() {
  return {.config = config_,
          .self = self_,
          .port = port_,
          .network = network_,
          .heartbeat = heartbeat_,
          .tombstones = tombstones_,
          .flows = flows_,
          .answers = answers_,
          .deliver = [this](std::span<const std::byte> packet) { openings_.inject(packet); },
          .counters = counters_,
          .records = DepartureRecords(config_.paths(self_.name).departures()),
          .aside = handoffs_.aside()};
}

std::string Service::without_kernel_resume() const {
  const std::string why = "no kernel resume: " + programs_.missing() + ": ";
  if (self_.resume == config::Resume::kKernel)
    return why +
           "transfers are refused, but for servers with `handoff`: write resume = \"auto\" and "
           "start "
           "the servers under `tcpmig exec`";
  return why + "servers must run under `tcpmig exec`, or have a `handoff`";
}

bool Service::by_program(std::uint16_t port) const {
  if (handoffs_.has_socket(port)) return true;
  return self_.resume != config::Resume::kKernel && !programs_.can_resume();
}

void Service::on_tun() {
  static std::array<std::byte, kPacketMax> buffer;  // one thread, one service
  for (int i = 0; i < kPacketBatch; ++i) {
    const auto got = ::read(tun_.fd(), buffer.data(), buffer.size());
    if (got <= 0) break;
    guarded("stray packet", [&] { on_packet(Bytes(buffer.begin(), buffer.begin() + got)); });
  }
  on_events();  // the program wakes us late: what a packet waits for may stand there already
}

/// A packet that had no socket. Its connection may have come since, or be on its way.
void Service::on_packet(Bytes packet) {
  const auto stray = parse_stray(packet);
  if (!stray) return;  // the kernel's own IPv6 housekeeping
  const abi::flow_key& flow = stray->flow;
  const auto tombstone = tombstones_.find(flow);
  const bool confirmed =
      tombstone && tombstone->state == abi::TOMB_CONFIRMED && !openings_.has(flow);
  if (confirmed && diag_.find(local_of(flow, tombstone->target_port), client_of(flow))) {
    openings_.inject(packet);
    ++counters_.replayed;
    return;
  }
  if (confirmed && departures_.send_on(flow, std::span(packet).subspan(stray->tcp))) return;
  const bool refused =
      tombstone && !assembly_.has(flow) &&
      (tombstone->state == abi::TOMB_REFUSED || tombstone->state == abi::TOMB_ABORTED);
  if (refused && hand_back_packet(flow, packet)) return;
  const TimePoint now = Clock::now();
  if (refused && endings_.is_ending(flow, now)) {
    openings_.inject(packet);
    ++counters_.ended_answered;
    return;
  }
  const bool pending = assembly_.has(flow) || (tombstone && tombstone->state == abi::TOMB_OPENING);
  if (!pending && !confirmed && orphans_.overdue(flow, stray->seq, now)) {
    openings_.inject(packet);  // there is no socket: the kernel answers as TCP does
    ++counters_.orphans_reset;
    return;
  }
  const bool has_room = !confirmed || held_.has_share(flow, packet);
  if (has_room && held_.add(flow, std::move(packet), now))
    ++counters_.held;
  else
    ++counters_.hold_full;
}

void Service::on_control(int fd) {
  port_.receive(fd, [this](std::span<const std::byte> datagram, const sys::Endpoint& from) {
    on_datagram(datagram, from);
  });
}

TimePoint Service::due() const {
  TimePoint first =
      std::min({confirmations_.due(), openings_.due(), handoffs_.due(), departures_.due(),
                endings_.due(), flows_.due(), next_load_, next_care_});
  const bool ticking = assembly_.under_way() > 0 || held_.packets() > 0 || !unconfirmed_.empty();
  return ticking ? std::min(first, next_tick_) : first;
}

void Service::tick(TimePoint now) {
  for (const Assembly::Gap& gap : assembly_.gaps(now)) {
    answers_.missing(gap.commit, gap.from, gap.missing);
    counters_.parts_asked += gap.missing.size();
  }
  for (const Assembly::Gap& gap : assembly_.expire(now)) {
    ++counters_.incomplete;
    guarded("refuse", [&] {
      refuse_unopened(flow_of(config_, self_.id, gap.commit), gap.commit, gap.from,
                      {abi::REASON_INCOMPLETE, 0});
    });
  }
  for (const HeldPackets::Expired& expired : held_.expire(now))
    guarded("end a hold", [&] { expire(expired); });
  // A server that reads slowly: the child exists, and the dispatcher shall not wait for the last byte.
  std::vector<Opened> late;
  for (const auto& [flow, opened] : unconfirmed_)
    if (now - opened.when > config_.timeouts.transfer / 4) late.push_back(opened);
  for (const Opened& opened : late) {
    unconfirmed_.erase(opened.flow);
    guarded("confirm", [&] { confirm(opened); });
  }
}

/// A connection has ended here, and none has come after it: the kernel answers as TCP does. Else the client sends them again.
void Service::expire(const HeldPackets::Expired& expired) {
  const auto tombstone = tombstones_.find(expired.flow);
  if (!tombstone || tombstone->state != abi::TOMB_CONFIRMED || openings_.has(expired.flow)) {
    counters_.hold_expired += expired.packets.size();
    return;
  }
  for (const Bytes& packet : expired.packets) openings_.inject(packet);
  counters_.ended_answered += expired.packets.size();
}

void Service::watch_syncookies() {
  if (!programs_.has_kernel_resume() || !programs_.look_at_syncookies()) return;
  if (programs_.can_resume())
    spdlog::info("net.ipv4.tcp_syncookies is on: transfers are opened again");
  else
    spdlog::warn("net.ipv4.tcp_syncookies = 0: no kernel resume: {}",
                 self_.resume == config::Resume::kKernel
                     ? "transfers to stock servers are refused"
                     : "only servers that run under `tcpmig exec` are given connections");
}

/// What somebody else may have undone, and what was missed.
void Service::keep_attached(TimePoint now) {
  next_care_ = now + kCarePause;
  if (!programs_.is_attached(interface_, tun_.ifindex())) {
    spdlog::warn("programs were detached from {} or {}: attaching them again", self_.interface,
                 tun_.name());
    attached_ = programs_.attach(interface_, tun_.ifindex());
  }
  watch_syncookies();
  const std::uint64_t lost = programs_.counters()[abi::ND_EVENT_LOST];
  if (lost != events_lost_) flows_.adopt(now);
  events_lost_ = lost;
}

void Service::run(TimePoint now) {
  confirmations_.run(now);
  openings_.run(now);
  handoffs_.run(now);
  departures_.run(now);
  endings_.run(now);
  if (now >= next_tick_) {
    next_tick_ = now + kTick;
    tick(now);
  }
  guarded("census", [&] { flows_.run(now); });
  if (now >= next_load_) {
    next_load_ = now + kLoadPause;
    answers_.load(static_cast<std::uint32_t>(flows_.live()));
    answers_.heartbeat(heartbeat_);
    guarded("events", [&] { on_events(); });  // if ever we should not be woken
  }
  if (now >= next_care_) guarded("care", [&] { keep_attached(now); });
}

nlohmann::json Service::status() const {
  nlohmann::json counters;
  const auto bpf = programs_.counters();
#define X(name, json, text) counters[json] = bpf[abi::name];
  NODE_COUNTERS(X)
#undef X
  nlohmann::json own;
#define X(name, text) own[#name] = counters_.name;
  TCPMIG_AGENT_COUNTERS(X)
#undef X
  return {{"role", "agent"},
          {"node", self_.name},
          {"pid", ::getpid()},
          {"ready", true},
          {"kfunc", programs_.can_resume()},
          {"attached", attached_},
          {"switch_heard", heartbeat_.heard(Clock::now())},
          {"live", flows_.live()},
          {"tombstones", flows_.tombstones()},
          {"held_packets", held_.packets()},
          {"held_bytes", held_.bytes()},
          {"assembling", assembly_.under_way()},
          {"delivering", openings_.under_way()},
          {"resume", programs_.can_resume()                    ? "kernel"
                     : self_.resume == config::Resume::kKernel ? "none"
                                                               : "repair"},
          {"handovers", handoffs_.status()},
          {"departures", departures_.status()},
          {"programs", std::move(counters)},
          {"agent", std::move(own)},
          {"warnings", warnings_}};
}

}  // namespace tcpmig::agent
