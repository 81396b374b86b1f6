// SPDX-License-Identifier: MIT
#pragma once
#include <array>
#include <cstddef>
#include <span>

#include <linux/tcp.h>

#include <tcpmig/address.hpp>
#include <tcpmig/snapshot.hpp>

#include "conn/repair_request.hpp"
#include "sys/unique_fd.hpp"

/// Packets that this machine makes up in a peer's name.
namespace tcpmig::conn {

/// Takes whole IP packets (IPPROTO_RAW: the IP header is the caller's). Needs CAP_NET_RAW.
sys::UniqueFd open_raw_socket(bool ipv4);
/// To a local address: it leaves by the loopback device and comes back as received.
void send_raw(int raw_fd, const Address& local, std::span<const std::byte> packet);

/// The TCP header that says what kTellEnd says; no ports and no checksum yet.
std::array<std::byte, sizeof(tcphdr)> made_up_end(const RepairRequest& request);

/// The TCP header of the peer's latest word, a bare acknowledgement: its clock, and nothing that is not known. Its timestamps are known.
std::array<std::byte, sizeof(tcphdr) + 12> made_up_clock(const Snapshot& snapshot);

}  // namespace tcpmig::conn
