// SPDX-License-Identifier: MIT
#include "switch/reaper.hpp"

#include <arpa/inet.h>
#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <spdlog/spdlog.h>

#include <algorithm>

#include "switch/programs.hpp"
#include "switch/sweep.hpp"
#include "sys/bpf.hpp"
#include "sys/check.hpp"

namespace tcpmig::steering {
namespace {

constexpr std::uint8_t kAskingLane = 1;  // REVOKED has 0
constexpr std::size_t kMostAsked = 10'000;
constexpr std::size_t kOrphansATick = 1'000;
constexpr int kLookShare = 20;  // looking through the table takes at most 1/20 of the time

bool is_server(const config::Config& config, std::uint64_t id) {
  const config::Node* node = config.find_node(static_cast<config::NodeId>(id));
  return node == nullptr || node->role == config::Role::kServer;
}

control::Outgoing question(const abi::flow_key& key, abi::flow_owner owner, std::uint16_t service) {
  control::Outgoing message;
  abi::wire_header& header = message.header;
  header.type = abi::WIRE_ABORT;
  header.target = htons(static_cast<std::uint16_t>(owner.is.owner));
  header.family = key.family;
  header.service = htons(service);
  header.generation = htonl(owner.is.generation);
  header.client = key.client;
  header.client_port = key.client_port;
  header.target_port = htons(static_cast<std::uint16_t>(owner.is.port));
  header.parts = htons(1);
  return message;
}

}  // namespace

Reaper::Reaper(const config::Config& config, const control::Secret& secret,
               const Programs& programs)
    : config_(config),
      programs_(programs),
      port_(config, secret, kAskingLane),
      next_look_(Clock::now()) {}

void Reaper::tick(Clock::time_point now) {
  resets_.again(now);
  if (now >= next_look_ && asked_.empty()) find_caught(now);
  const std::size_t before = asked_.size();
  std::erase_if(asked_, [&](Asked& asked) { return !ask(asked); });
  if (before != asked_.size())
    spdlog::debug("{} flows in a transfer are still asked after", asked_.size());
  reap_orphans();
}

void Reaper::find_caught(Clock::time_point now) {
  const std::uint64_t now_ns = monotonic_ns();
  sys::map_for_each<abi::flow_key, abi::flow_value>(
      programs_.map("flows"), [&](const abi::flow_key& key, const abi::flow_value& flow) {
        if (!is_caught(flow, config_.timeouts, now_ns) || asked_.size() >= kMostAsked) return;
        if (is_server(config_, flow.owner.is.owner))
          asked_.push_back({key, flow.service, {flow.owner, now_ns}});
      });
  const auto took = Clock::now() - now;
  next_look_ =
      Clock::now() + std::max<Clock::duration>(config_.timeouts.transfer, kLookShare * took);
}

bool Reaper::ask(Asked& asked) {
  const auto flow = sys::map_lookup<abi::flow_value>(programs_.map("flows"), asked.key);
  const abi::flow_owner owner = asked.question.owner();
  switch (asked.question.step(flow ? &*flow : nullptr, config_.timeouts, monotonic_ns())) {
    case Question::Step::kOver:
      return false;
    case Question::Step::kWait:
      return true;
    case Question::Step::kAsk:
      port_.send(question(asked.key, owner, asked.service));
      return true;
    case Question::Step::kReap:
      break;
  }
  abi::reap_request request{};
  request.key = asked.key;
  request.owner = owner;
  request.counter = abi::SW_REAPED_TRANSFER;
  if (reap(request))
    spdlog::info("a client of node {} was caught in its transfer, and is reset: {}",
                 static_cast<unsigned>(owner.is.owner),
                 is_closing(*flow) ? "the server does not have it" : "no word from the server");
  return false;
}

bool Reaper::reap(const abi::reap_request& asked) {
  abi::reap_request request = asked;
  LIBBPF_OPTS(bpf_test_run_opts, options, .ctx_in = &request, .ctx_size_in = sizeof request);
  sys::check_errno("run the reaping program",
                   bpf_prog_test_run_opts(programs_.program("reap"), &options));
  if (request.reaped == 0) return false;
  resets_.send(request.key, request.client_ack);
  return true;
}

void Reaper::orphaned(config::NodeId dispatcher, std::uint64_t before_ns,
                      abi::switch_counter counter) {
  struct Found {
    std::uint64_t seen_ns;
    abi::reap_request request;
  };
  std::vector<Found> found;
  const auto add = [&](const abi::flow_key& key, std::uint64_t seen_ns) -> abi::reap_request& {
    found.push_back({seen_ns, {}});
    found.back().request.key = key;
    found.back().request.counter = static_cast<std::uint32_t>(counter);
    return found.back().request;
  };
  sys::map_for_each<abi::flow_key, abi::affinity_value>(
      programs_.map("affinity"), [&](const abi::flow_key& key, const abi::affinity_value& bound) {
        if (!is_left_behind(bound, dispatcher, before_ns)) return;
        abi::reap_request& request = add(key, bound.last_seen_ns);
        request.owner.is.owner = dispatcher & (abi::MAX_NODES - 1U);
        request.before_ns = before_ns;
      });
  sys::map_for_each<abi::flow_key, abi::flow_value>(
      programs_.map("flows"), [&](const abi::flow_key& key, const abi::flow_value& flow) {
        if (is_left_behind(flow, dispatcher, before_ns))
          add(key, flow.last_seen_ns).owner = flow.owner;
      });
  std::ranges::sort(found, std::ranges::greater{}, &Found::seen_ns);
  for (const Found& one : found) orphans_.push_back(one.request);
}

void Reaper::reap_orphans() {
  std::size_t ended = 0;
  for (std::size_t i = 0; i < kOrphansATick && !orphans_.empty(); ++i) {
    const abi::reap_request request = orphans_.front();
    orphans_.pop_front();
    ended += reap(request) ? 1 : 0;
  }
  if (ended > 0)
    spdlog::info("{} clients of dead dispatchers were reset, {} are still to be looked at", ended,
                 orphans_.size());
}

}  // namespace tcpmig::steering
