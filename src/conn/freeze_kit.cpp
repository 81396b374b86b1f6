// SPDX-License-Identifier: MIT
#include <bpf/bpf.h>
#include <bpf/libbpf.h>

#include <cstring>
#include <exception>
#include <utility>

#include <tcpmig/freeze.hpp>

#include "conn/cgroup_programs.hpp"
#include "conn/repair_mode.hpp"
#include "lock.skel.h"
#include "shared/node_maps.h"
#include "sys/bpf.hpp"
#include "sys/check.hpp"

namespace tcpmig {
namespace {

struct Destroy {
  void operator()(lock* skeleton) const noexcept { lock__destroy(skeleton); }
  void operator()(ring_buffer* ring) const noexcept { ring_buffer__free(ring); }
};

/// What a call of consume_captures() hands through libbpf, whose C frames no exception may cross.
struct Consumer {
  const std::function<void(CapturedSegment)>* take = nullptr;
  std::exception_ptr error;
};

CapturedSegment to_segment(const void* record, std::size_t size) {
  abi::capture head{};
  if (size < sizeof(head)) return {};
  std::memcpy(&head, record, sizeof(head));
  const auto* bytes = static_cast<const std::byte*>(record) + sizeof(head);
  return {.cookie = head.cookie,
          .bytes = {bytes, bytes + std::min<std::size_t>(head.length, size - sizeof(head))}};
}

}  // namespace

struct FreezeKit::State {
  std::unique_ptr<lock, Destroy> lock_skeleton;
  Consumer consumer;
  std::unique_ptr<ring_buffer, Destroy> captures;
  std::shared_ptr<conn::CgroupPrograms> programs;
  bool has_dump = false;
  bool has_window = false;
  conn::RepairRight right = conn::RepairRight::kNone;
  std::vector<std::string> warnings;

  static int take_record(void* context, void* record, std::size_t size);
  void find_right();
  void load_lock();
  void enter_cgroup(const FreezeKit::Options& options);
  /// Runs one step; what it throws becomes a warning that says what it costs.
  bool attempt(void (State::*step)(), const std::string& cost);
  void attach_dump() { programs->attach_dump(); }
  void attach_window() { programs->attach_window(); }
};

int FreezeKit::State::take_record(void* context, void* record, std::size_t size) {
  auto& consumer = static_cast<State*>(context)->consumer;
  try {
    (*consumer.take)(to_segment(record, size));
    return 0;
  } catch (...) {
    consumer.error = std::current_exception();
    return -ECANCELED;
  }
}

void FreezeKit::State::find_right() {
  try {
    right = conn::repair_right();
    if (right == conn::RepairRight::kNone)
      warnings.emplace_back("the kernel has no TCP_REPAIR: no connection can be moved");
  } catch (const std::system_error& error) {
    warnings.push_back(std::string(error.what()) + ": " +
                       (conn::has_repair_helper()
                            ? "no connection can be moved"
                            : "TCP_REPAIR is not permitted (CAP_NET_ADMIN, or set_repair_helper): "
                              "no connection can be moved"));
  }
}

void FreezeKit::State::load_lock() {
  std::unique_ptr<lock, Destroy> skeleton(lock__open());
  if (!skeleton) sys::check("open the lock program", -1);
  sys::check_errno("size the lock program's scratch map",
                   bpf_map__set_max_entries(skeleton->maps.scratch,
                                            static_cast<unsigned>(sys::possible_cpus())));
  sys::check_errno("load the lock program", lock__load(skeleton.get()));
  captures.reset(
      ring_buffer__new(bpf_map__fd(skeleton->maps.captures), take_record, this, nullptr));
  if (!captures) sys::check("map the ring buffer of captures", -1);
  lock_skeleton = std::move(skeleton);
}

bool FreezeKit::State::attempt(void (State::*step)(), const std::string& cost) {
  try {
    (this->*step)();
    return true;
  } catch (const std::runtime_error& error) {
    warnings.push_back(std::string(error.what()) + ": " + cost);
    return false;
  }
}

void FreezeKit::State::enter_cgroup(const FreezeKit::Options& options) {
  if (options.cgroup_name.empty() || (!options.use_dump_program && !options.keep_window_small))
    return;
  try {
    programs = conn::CgroupPrograms::of_process(options.cgroup_name);
  } catch (const std::runtime_error& error) {
    warnings.push_back(std::string(error.what()) +
                       ": connections are dumped by the plain recipe (10 us more), and acknowledge "
                       "up to 128 KB unread");
    return;
  }
  has_dump =
      options.use_dump_program &&
      attempt(&State::attach_dump, "connections are dumped by the plain recipe, 10 us more each");
  has_window =
      options.keep_window_small &&
      attempt(&State::attach_window, "connections acknowledge up to 128 KB before they are read");
}

FreezeKit::FreezeKit(const Options& options) : state_(std::make_unique<State>()) {
  State& state = *state_;
  state.find_right();
  state.attempt(&State::load_lock,
                "what arrives during a transfer costs the client a retransmission (200 ms)");
  state.enter_cgroup(options);
}

FreezeKit::~FreezeKit() = default;

bool FreezeKit::has_lock() const noexcept { return state_->lock_skeleton != nullptr; }
bool FreezeKit::has_dump_program() const noexcept { return state_->has_dump; }
bool FreezeKit::keeps_window_small() const noexcept { return state_->has_window; }
bool FreezeKit::may_repair() const noexcept { return state_->right != conn::RepairRight::kNone; }
bool FreezeKit::repairs_by_helper() const noexcept {
  return state_->right == conn::RepairRight::kHelpers;
}
const std::vector<std::string>& FreezeKit::warnings() const noexcept { return state_->warnings; }

int FreezeKit::captures_fd() const noexcept {
  return state_->captures ? ring_buffer__epoll_fd(state_->captures.get()) : -1;
}

int FreezeKit::consume_captures(const std::function<void(CapturedSegment)>& take) {
  if (!state_->captures) return 0;
  state_->consumer = {.take = &take, .error = nullptr};
  const int taken = ring_buffer__consume(state_->captures.get());
  if (state_->consumer.error)
    std::rethrow_exception(std::exchange(state_->consumer.error, nullptr));
  return sys::check_errno("consume captures", taken);
}

std::uint64_t FreezeKit::captures_lost() const {
  if (!has_lock()) return 0;
  const int map = bpf_map__fd(state_->lock_skeleton->maps.captures_lost);
  return sys::map_lookup<std::uint64_t>(map, std::uint32_t{0}).value_or(0);
}

int FreezeKit::lock_program_fd() const noexcept {
  return has_lock() ? bpf_program__fd(state_->lock_skeleton->progs.lock) : -1;
}

}  // namespace tcpmig
