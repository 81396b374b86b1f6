// SPDX-License-Identifier: MIT
#pragma once
#include <cstdint>

#include "sys/bpf.hpp"

namespace tcpmig::sys {

/// The older way to hang a program on tc, for kernels without TCX: a clsact qdisc and a filter
/// known by our handle and a priority. Use attach_tc(), which comes here by itself.
///
/// The qdisc is removed with its last filter only if we made it. That is recorded as a directory
/// `clsact_<ifindex>` beside the pins, made before the qdisc: bpffs holds no files, and like the
/// qdisc it does not outlive a boot.
void attach_clsact(int ifindex, TcHook hook, int prog_fd, const PinDirectory& pins,
                   std::uint32_t priority);
/// The same without a record of whose the qdisc is: on an interface that goes with whoever calls.
void attach_clsact_unrecorded(int ifindex, TcHook hook, int prog_fd, std::uint32_t priority);
void detach_clsact(int ifindex, TcHook hook, const PinDirectory& pins, std::uint32_t priority);
/// Id of our program with this priority; 0: none.
std::uint32_t clsact_program(int ifindex, TcHook hook, std::uint32_t priority);

}  // namespace tcpmig::sys
