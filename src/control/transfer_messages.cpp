// SPDX-License-Identifier: MIT
#include "control/transfer_messages.hpp"

#include <arpa/inet.h>

#include <algorithm>
#include <stdexcept>

namespace tcpmig::control {
namespace {

/// RFC 1071 sum, folded, not complemented, in network order.
std::uint16_t checksum(std::span<const std::byte> bytes) {
  std::uint64_t sum = 0;
  for (std::size_t i = 0; i < bytes.size(); i += 2) {
    const unsigned high = std::to_integer<unsigned>(bytes[i]);
    const unsigned low = i + 1 < bytes.size() ? std::to_integer<unsigned>(bytes[i + 1]) : 0;
    sum += high << 8 | low;
  }
  while (sum >> 16 != 0) sum = (sum & 0xffff) + (sum >> 16);
  return static_cast<std::uint16_t>(sum);
}

std::uint8_t option_bits(const Snapshot& snapshot) {
  unsigned bits = 0;
  if (snapshot.wscale) bits |= abi::WIRE_OPT_WSCALE;
  if (snapshot.sack) bits |= abi::WIRE_OPT_SACK;
  if (snapshot.timestamps) bits |= abi::WIRE_OPT_TIMESTAMPS;
  if (snapshot.timestamps && snapshot.timestamps->microseconds) bits |= abi::WIRE_OPT_USEC_TS;
  if (snapshot.ecn) bits |= abi::WIRE_OPT_ECN;
  return static_cast<std::uint8_t>(bits);
}

/// All that the parts of one transfer have in common.
abi::wire_header common_header(const Transfer& transfer, const Snapshot& snapshot) {
  abi::wire_header header{};
  header.sender = htons(transfer.sender);
  header.target = htons(transfer.target);
  header.lane = transfer.lane;
  if (snapshot.peer_closed()) header.flags = abi::WIRE_FLAG_CLIENT_FIN;
  header.family = transfer.client.address.is_ipv4() ? abi::FAMILY_IPV4 : abi::FAMILY_IPV6;
  header.service = htons(transfer.service);
  header.generation = htonl(transfer.generation);
  header.client = transfer.client.address.raw();
  header.client_port = htons(transfer.client.port);
  header.target_port = htons(transfer.target_port);
  header.total_length = htonl(static_cast<std::uint32_t>(snapshot.received.size()));
  header.rcv_nxt = htonl(snapshot.rcv_nxt.value);
  header.snd_nxt = htonl(snapshot.snd_nxt.value);
  header.snd_wnd = htonl(snapshot.snd_wnd);
  header.mss = htons(snapshot.mss);
  header.options = option_bits(snapshot);
  if (snapshot.wscale) {
    header.snd_wscale = snapshot.wscale->snd;
    header.rcv_wscale = snapshot.wscale->rcv;
  }
  if (snapshot.timestamps) {
    header.tsval_now = htonl(snapshot.timestamps->tsval_now);
    header.ts_recent = htonl(snapshot.timestamps->ts_recent.value_or(0));
  }
  header.srtt_us = htonl(snapshot.srtt_us);
  return header;
}

}  // namespace

std::size_t segment_room(const sys::Endpoint& client) {
  return client.address.is_ipv4() ? abi::WIRE_PAYLOAD_MAX_IPV4 : abi::WIRE_PAYLOAD_MAX_IPV6;
}

namespace {

/// `first`: what payload_seq of the first part is.
std::vector<Outgoing> in_parts(const abi::wire_header& common, std::span<const std::byte> payload,
                               std::uint32_t first) {
  const bool ipv4 = common.family == abi::FAMILY_IPV4;
  const std::size_t room = ipv4 ? abi::WIRE_PAYLOAD_MAX_IPV4 : abi::WIRE_PAYLOAD_MAX_IPV6;
  const std::size_t total = payload.size();
  const std::size_t parts = std::max<std::size_t>(1, (total + room - 1) / room);
  std::vector<Outgoing> messages;
  messages.reserve(parts);
  for (std::size_t part = 0; part < parts; ++part) {
    const std::size_t offset = part * room;
    Outgoing message{common, payload.subspan(offset, std::min(room, total - offset))};
    message.header.type = part + 1 == parts ? abi::WIRE_COMMIT : abi::WIRE_DATA;
    message.header.part = htons(static_cast<std::uint16_t>(part));
    message.header.parts = htons(static_cast<std::uint16_t>(parts));
    message.header.payload_seq = htonl(first + static_cast<std::uint32_t>(offset));
    message.header.payload_csum = htons(checksum(message.payload));
    message.header.total_length = htonl(static_cast<std::uint32_t>(total));
    messages.push_back(message);
  }
  return messages;
}

}  // namespace

std::vector<Outgoing> transfer_messages(const Transfer& transfer, const Snapshot& snapshot) {
  const std::size_t total = snapshot.received.size();
  if (total > abi::WIRE_SNAPSHOT_MAX)
    throw std::length_error("the connection holds more received bytes than a transfer carries");
  const Seq start = snapshot.rcv_nxt - static_cast<std::uint32_t>(total);
  return in_parts(common_header(transfer, snapshot), snapshot.received, start.value);
}

std::vector<Outgoing> whole_messages(const Transfer& transfer, const Snapshot& snapshot,
                                     std::span<const std::byte> payload) {
  if (payload.size() > abi::WIRE_WHOLE_MAX)
    throw std::length_error("the connection and its blob are larger than a transfer carries");
  abi::wire_header common = common_header(transfer, snapshot);
  common.flags |= abi::WIRE_FLAG_WHOLE;
  common.snd_nxt = htonl(snapshot.snd_una.value);
  return in_parts(common, payload, 0);
}

Outgoing bare_commit(const Transfer& transfer, const Snapshot& snapshot) {
  Outgoing message{common_header(transfer, snapshot), {}};
  message.header.type = abi::WIRE_COMMIT;
  message.header.snd_nxt = htonl(snapshot.snd_una.value);
  message.header.parts = htons(1);
  return message;
}

Outgoing take_back_message(const Transfer& transfer, const Snapshot& snapshot) {
  Outgoing message = bare_commit(transfer, snapshot);
  message.header.flags |= abi::WIRE_FLAG_TAKE_BACK;
  return message;
}

Outgoing abort_message(const Outgoing& commit) {
  Outgoing message{commit.header, {}};
  message.header.type = abi::WIRE_ABORT;
  message.header.sequence = 0;
  return message;
}

Outgoing segment_message(const Transfer& about, std::span<const std::byte> segment, bool crafted) {
  Outgoing message{};
  abi::wire_header& header = message.header;
  header.type = abi::WIRE_SEGMENT;
  header.flags = crafted ? abi::WIRE_FLAG_CRAFTED : 0;
  header.target = htons(about.target);
  header.family = about.client.address.is_ipv4() ? abi::FAMILY_IPV4 : abi::FAMILY_IPV6;
  header.service = htons(about.service);
  header.generation = htonl(about.generation);
  header.client = about.client.address.raw();
  header.client_port = htons(about.client.port);
  header.target_port = htons(about.target_port);
  message.payload = segment;
  return message;
}

}  // namespace tcpmig::control
