// SPDX-License-Identifier: MIT
#pragma once
#include <optional>
#include <span>

#include "agent/flow.hpp"

/// TCP segments of a client, as header and data without IP (conn/segment.hpp makes packets of them). Pure functions over bytes.
namespace tcpmig::agent {

/// The segment that opens a transfer, as the tc program makes it (resume.bpf.c): its first bytes, timestamps when negotiated.
Bytes opening_segment(const abi::wire_header& commit, std::uint32_t seq,
                      std::span<const std::byte> payload, bool fin);

/// One that brings more of the received bytes. It carries no timestamp: the client may have sent newer ones meanwhile, and a segment
/// with an older one would be dropped (PAWS); one without is taken (docs/kernel-notes.md).
Bytes further_segment(const abi::wire_header& commit, std::uint32_t seq, std::uint32_t ack,
                      std::span<const std::byte> payload, bool fin);

/// A bare acknowledgement of `ack` (host order). A kernel that has no socket for it answers by a RST with that sequence number
/// (RFC 9293 3.10.7.1).
Bytes acknowledgement(std::uint32_t ack);

/// Puts in the acknowledgement number that a former owner could not know (WIRE_FLAG_CRAFTED). False: no TCP header.
bool set_acknowledgement(std::span<std::byte> segment, std::uint32_t ack);

/// What a segment brings.
struct SegmentData {
  std::uint32_t seq = 0;
  std::span<const std::byte> bytes;
};
/// nullopt: no TCP header.
std::optional<SegmentData> data_of(std::span<const std::byte> segment);

/// A packet that the guard gave to the TUN.
struct StrayPacket {
  abi::flow_key flow{};
  std::uint32_t seq = 0;
  std::size_t tcp = 0;  ///< where its TCP header begins
};
/// nullopt: not TCP.
std::optional<StrayPacket> parse_stray(std::span<const std::byte> packet);

}  // namespace tcpmig::agent
