// SPDX-License-Identifier: MIT
#include "sim/switch_run.hpp"

#include <map>

#include "sim/dispatcher.hpp"
#include "switch/health.hpp"

namespace tcpmig::sim {
namespace {

constexpr Millis kPatience = 4 * kTransfer;  // before a silent owner is asked
constexpr Millis kTick = 100;
constexpr Millis kDead = 3'000;  // three times timeouts.health
constexpr std::uint64_t kRemembered = 2 * kTransfer + 1'000;
constexpr std::uint64_t kNanos = 1'000'000;

const abi::flow_value* flow() { return static_cast<const abi::flow_value*>(sim_switch_flow()); }

}  // namespace

/// It looks through the table each two seconds; the clock of that is not the transfer's.
void SwitchRun::committed() {
  if (!up_ || look_due_) return;
  look_due_ = true;
  soon(kPatience + 1 + 500 * network_.chooser().pick(4), [this] { look(); });
}

void SwitchRun::look() {
  look_due_ = false;
  if (question_) return;
  const abi::flow_value* found = flow();
  if (found == nullptr || found->owner.is.owner < kServer0 || found->owner.is.spoke) return;
  if (!steering::is_caught(*found, network_.timeouts(), network_.now_ns())) {
    look_due_ = true;
    return soon(kTransfer, [this] { look(); });
  }
  question_.emplace(found->owner, network_.now_ns());
  ask();
}

void SwitchRun::ask() {
  using Step = steering::Question::Step;
  const abi::flow_owner owner = question_->owner();
  const Step step = question_->step(flow(), network_.timeouts(), network_.now_ns());
  if (step == Step::kAsk)
    network_.to_node({.type = abi::WIRE_ABORT,
                      .sender = kSwitch,
                      .target = static_cast<std::uint16_t>(owner.is.owner),
                      .generation = static_cast<std::uint32_t>(owner.is.generation)});
  if (step == Step::kAsk || step == Step::kWait) return soon(kTick, [this] { ask(); });
  question_.reset();
  if (step == Step::kOver) return look();
  abi::reap_request request{};
  request.owner = owner;
  request.counter = abi::SW_REAPED_TRANSFER;
  reap(request);
}

/// The flow is taken away in one step, then its client gets a RST, and one more, for it may get lost.
void SwitchRun::reap(abi::reap_request request) {
  if (network_.mutated(Mutation::kNothingReaped)) return;
  sim_switch_reap(&request);
  if (request.reaped == 0) return;
  network_.reset_client(request.client_ack);
  soon(250, [this, seq = request.client_ack] { network_.reset_client(seq); });
  soon(kRemembered + 1, [] { sim_switch_forget(kRemembered * kNanos); });
}

// ---- dispatchers

void SwitchRun::dispatcher_died() {
  for (const Millis when : {Millis{0}, Millis{1'000}, kDead, kDead + 1'000})
    soon(when + kTick, [this] { watch(); });
}

void SwitchRun::watch() {
  const Dispatcher& dispatcher = network_.dispatcher();
  abi::node_liveness liveness{};
  liveness.heard_ns = 1 + dispatcher.last_heard() * kNanos;
  const auto health = steering::health_of(liveness, network_.now_ns(), network_.timeouts().health);
  const auto choice = steering::choose_dispatchers(
      {{kDispatcher, health}, {kOtherDispatcher, steering::Health::kAlive}}, false);
  sim_switch_use_dispatcher(choice.chosen.contains(kDispatcher) ? kDispatcher : kOtherDispatcher,
                            choice.down.contains(kDispatcher) ? kDispatcher : 0);
  if (health == steering::Health::kDead && !std::exchange(let_go_, true)) orphaned(network_.now());
  if (dispatcher.replaced() && since_ != dispatcher.replaced()) {
    since_ = dispatcher.replaced();
    orphaned(*since_);
  }
}

void SwitchRun::orphaned(Millis before) {
  const std::uint64_t before_ns = 1 + before * kNanos;
  const auto* bound = static_cast<const abi::affinity_value*>(sim_switch_binding());
  if (bound != nullptr && steering::is_left_behind(*bound, kDispatcher, before_ns)) {
    abi::reap_request request{};
    request.owner.is.owner = kDispatcher;
    request.before_ns = before_ns;
    request.counter = abi::SW_RESET_DEAD_DISPATCHER;
    reap(request);
  }
  const abi::flow_value* found = flow();
  if (found != nullptr && steering::is_left_behind(*found, kDispatcher, before_ns)) {
    abi::reap_request request{};
    request.owner = found->owner;
    request.counter = abi::SW_RESET_DEAD_DISPATCHER;
    reap(request);
  }
}

// ---- nodes that do not own the flow

void SwitchRun::read_revocations() {
  sim_revocation told{};
  if (sim_switch_revocation(&told)) waiting_ = Revocation{told, network_.now()};
  if (!up_ || !waiting_) return;
  if (network_.now() < waiting_->when + kTransfer) tell(waiting_->told);
  waiting_.reset();
}

void SwitchRun::tell(const sim_revocation& told) {
  network_.to_node({.type = abi::WIRE_REVOKED,
                    .sender = kSwitch,
                    .target = static_cast<std::uint16_t>(told.node),
                    .generation = told.generation});
}

void SwitchRun::kill() {
  if (!up_) return;
  up_ = false;
  ++run_;
  look_due_ = false;
  question_.reset();
  let_go_ = false;
  since_.reset();
  network_.after(network_.chooser().sequel(2) == 0 ? 20 : 10'000, [this] {
    up_ = true;
    read_revocations();
    watch();
    look();
    if (!network_.dispatcher().process_lives()) dispatcher_died();
  });
}

}  // namespace tcpmig::sim
