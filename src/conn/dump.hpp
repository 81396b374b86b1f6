// SPDX-License-Identifier: MIT
#pragma once
#include <cstddef>
#include <optional>
#include <string>
#include <vector>

#include <tcpmig/freeze.hpp>
#include <tcpmig/snapshot.hpp>

#include "conn/silent_visit.hpp"
#include "shared/node_maps.h"
#include "sys/address.hpp"

namespace tcpmig::conn {

/// The state of a connection as one of the two recipes reads it; they agree in everything but
/// ts_recent.
struct Dump {
  abi::tcp_dump state{};
  bool knows_ts_recent = false;
  std::optional<abi::tcp_settings> settings = {};  ///< only of a whole dump by the program
};

/// One getsockopt, answered by bpf/dump.bpf.c. nullopt: this socket is not in the program's cgroup
/// (it was made before the process entered), or is not TCP. Scope::kWhole: with the settings.
std::optional<Dump> dump_by_program(int fd, Scope scope = Scope::kRequest);
/// The plain recipe: TCP_REPAIR and a dozen system calls. What it cannot see: MD5 keys, data
/// after a gap while other data waits to be read, accurate ECN, and urgent data with SO_OOBINLINE. In `silence` afterwards, unless it is
/// refused for something that has no TCP_REPAIR.
Dump dump_by_repair(int fd, std::optional<SilentVisit>& silence);

/// What of the send queue is sent and acknowledged, anew. In a SilentVisit, the send queue not selected since it began; write_seq is known.
void dump_send_side(int fd, abi::tcp_dump& state);

void take_window(const RepairWindow& window, abi::tcp_dump& state);

/// The peer's FIN has been received: rcv_nxt counts it.
bool peer_closed(const abi::tcp_dump& state);
/// The number after the last byte of the peer's stream so far, without its FIN.
Seq end_of_received(const abi::tcp_dump& state);
/// The number after the last byte that the application has written, without our FIN, which write_seq counts once it has closed.
Seq end_of_written(const abi::tcp_dump& state);

/// Why this connection cannot be carried: a sentence. nullopt: it can.
std::optional<std::string> refusal(const abi::tcp_dump& state, Scope scope);

/// Without the bytes of the send queue.
Snapshot to_snapshot(const Dump& dump, std::vector<std::byte> received);

}  // namespace tcpmig::conn
