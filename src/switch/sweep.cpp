// SPDX-License-Identifier: MIT
#include "switch/sweep.hpp"

#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <time.h>

#include <vector>

#include "shared/switch_maps.h"
#include "switch/programs.hpp"
#include "sys/bpf.hpp"
#include "sys/check.hpp"

namespace tcpmig::steering {
namespace {

constexpr std::chrono::seconds kMargin{1};

bool forget(int program, const abi::flow_key& key, std::uint64_t dead_ns) {
  abi::forget_request request{};
  request.key = key;
  request.dead_ns = dead_ns;
  // The kernel writes a syscall program's context back to where it came from, and refuses a
  // ctx_out.
  LIBBPF_OPTS(bpf_test_run_opts, options, .ctx_in = &request, .ctx_size_in = sizeof request);
  sys::check_errno("run the sweeping program", bpf_prog_test_run_opts(program, &options));
  return request.removed != 0;
}

}  // namespace

std::uint64_t nanoseconds(std::chrono::milliseconds time) {
  return static_cast<std::uint64_t>(std::chrono::nanoseconds(time).count());
}

std::uint64_t monotonic_ns() {
  timespec now{};
  ::clock_gettime(CLOCK_MONOTONIC, &now);
  return static_cast<std::uint64_t>(now.tv_sec) * 1'000'000'000 +
         static_cast<std::uint64_t>(now.tv_nsec);
}

bool is_closing(const abi::flow_value& flow) {
  return flow.marks.is.generation == flow.owner.is.generation && flow.marks.is.closing;
}

bool has_client_rst(const abi::flow_value& flow) {
  return flow.marks.is.generation == flow.owner.is.generation && flow.marks.is.client_rst;
}

bool is_dead(const abi::flow_value& flow, const config::Timeouts& timeouts, std::uint64_t now_ns) {
  if (flow.owner.is.owner == 0) return true;
  if (is_closing(flow) && flow.closing_ns + nanoseconds(timeouts.closing) < now_ns) return true;
  return flow.last_seen_ns + nanoseconds(timeouts.idle) < now_ns;
}

std::size_t sweep_flows(const Programs& programs, const config::Timeouts& timeouts) {
  // A COMMIT is repeated for as long as a transfer may take, and may be on its way as long again.
  const std::uint64_t dead_ns = nanoseconds(2 * timeouts.transfer + kMargin), now = monotonic_ns();
  if (now < dead_ns) return 0;
  std::vector<abi::flow_key> candidates;
  sys::map_for_each<abi::flow_key, abi::flow_value>(
      programs.map("flows"), [&](const abi::flow_key& key, const abi::flow_value& flow) {
        const bool ended = flow.owner.is.owner == 0;
        if (ended ? flow.last_seen_ns < now - dead_ns : is_dead(flow, timeouts, now - dead_ns))
          candidates.push_back(key);
      });
  const int program = programs.program("forget");
  std::size_t removed = 0;
  for (const abi::flow_key& key : candidates) removed += forget(program, key, dead_ns) ? 1 : 0;
  return removed;
}

}  // namespace tcpmig::steering
