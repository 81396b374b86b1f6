// SPDX-License-Identifier: MIT
#pragma once
#include <chrono>

namespace tcpmig::conn {

/// Where wait_for_grace_period() cannot wait: far longer than any softirq. Nothing tells when it is over.
inline constexpr std::chrono::milliseconds kInsteadOfGracePeriod{200};

/// Returns when every softirq that was past a socket's filter when the lock came has delivered (membarrier(2), MEMBARRIER_CMD_GLOBAL:
/// kernel/sched/membarrier.c, synchronize_rcu()): some 10 ms. False at once where the kernel has no such membarrier (CPUs in nohz_full mode).
bool wait_for_grace_period() noexcept;

}  // namespace tcpmig::conn
