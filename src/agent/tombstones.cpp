// SPDX-License-Identifier: MIT
#include "agent/tombstones.hpp"

#include <arpa/inet.h>
#include <bpf/bpf.h>

#include "sys/check.hpp"

namespace tcpmig::agent {
namespace {

abi::tombstone_request request_for(const abi::flow_key& flow, control::Generation generation,
                                   abi::tombstone_verb verb) {
  abi::tombstone_request request{};
  request.flow = flow;
  request.generation = generation;
  request.verb = verb;
  return request;
}

}  // namespace

std::optional<abi::tombstone> Tombstones::find(const abi::flow_key& flow) const {
  return sys::map_lookup<abi::tombstone>(map_fd_, flow);
}

bool Tombstones::is_of(const abi::flow_key& flow, control::Generation generation) const {
  const auto tombstone = find(flow);
  return tombstone && tombstone->generation == generation;
}

bool Tombstones::is_before(const abi::flow_key& flow, control::Generation generation) const {
  const auto tombstone = find(flow);
  return tombstone && control::newer(generation, tombstone->generation);
}

bool Tombstones::child_seen(const abi::flow_key& flow, control::Generation generation) const {
  const auto tombstone = find(flow);
  return tombstone && tombstone->child_seen == (abi::CHILD_SEEN | generation);
}

Tombstones::Outcome Tombstones::change(abi::tombstone_request request) {
  constexpr int kAttempts = 8;  // BUSY: another CPU changed it each time we looked
  for (int i = 0; i < kAttempts; ++i) {
    LIBBPF_OPTS(bpf_test_run_opts, options);
    options.ctx_in = &request;  // the kernel writes the answer back to the same place
    options.ctx_size_in = sizeof request;
    sys::check_errno("change a tombstone", bpf_prog_test_run_opts(program_fd_, &options));
    if (request.outcome != abi::TOMBSTONE_BUSY) break;
  }
  return {static_cast<abi::tombstone_outcome>(request.outcome), request.now};
}

Tombstones::Outcome Tombstones::begin(const abi::flow_key& flow, const abi::wire_header& commit,
                                      abi::tombstone_verb verb, std::uint32_t received) {
  auto request = request_for(flow, ntohl(commit.generation), verb);
  request.received = received;
  request.snd_nxt = ntohl(commit.snd_nxt);
  request.target_port = ntohs(commit.target_port);
  return change(request);
}

Tombstones::Outcome Tombstones::announce(const abi::flow_key& flow,
                                         const abi::wire_header& commit) {
  return begin(flow, commit, abi::TOMBSTONE_ANNOUNCE, 0);
}

Tombstones::Outcome Tombstones::claim(const abi::flow_key& flow, const abi::wire_header& commit,
                                      std::uint32_t received) {
  return begin(flow, commit, abi::TOMBSTONE_CLAIM, received);
}

Tombstones::Outcome Tombstones::settle(const abi::flow_key& flow, control::Generation generation,
                                       abi::tombstone_state state, std::uint8_t reason,
                                       std::uint16_t detail) {
  auto request = request_for(flow, generation, abi::TOMBSTONE_SETTLE);
  request.state = static_cast<std::uint8_t>(state);
  request.reason = reason;
  request.detail = detail;
  return change(request);
}

Tombstones::Outcome Tombstones::forbid(const abi::flow_key& flow, const abi::wire_header& abort) {
  auto request = request_for(flow, ntohl(abort.generation), abi::TOMBSTONE_FORBID);
  request.target_port = ntohs(abort.target_port);
  return change(request);
}

bool Tombstones::sweep(const abi::flow_key& flow, control::Generation generation) {
  return change(request_for(flow, generation, abi::TOMBSTONE_SWEEP)).what == abi::TOMBSTONE_DONE;
}

}  // namespace tcpmig::agent
